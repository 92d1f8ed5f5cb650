//! The guest's allocator: begins with the memory that the module has anyway.
//!
//! An adapter lives for one request. Growing its memory costs the host two system calls and
//! an interrupt of its other threads; what lies between the end of the module's data and the
//! end of its first pages is enough for most requests.

use core::alloc::Layout;
use core::arch::wasm32::{memory_grow, memory_size};
use core::ptr::NonNull;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

#[global_allocator]
static HEAP: TalcSyncCell<FirstPages, WasmBinning> = TalcSyncCell::new_wasm(FirstPages { end: None });

/// Bytes of a WebAssembly page.
const PAGE_BYTES: usize = 64 * 1024;

/// What the allocator needs on top of an allocation, generously.
const OVERHEAD_BYTES: usize = 1024;

unsafe extern "C" {
    /// Where the linker ends the module's data.
    static __heap_base: u8;
}

/// First the rest of the module's own pages, then grown ones.
#[derive(Debug)]
struct FirstPages {
    end: Option<NonNull<u8>>,
}

// SAFETY: allocates nothing, and touches no other allocator.
unsafe impl Source for FirstPages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let Some(end) = talc.source.end else {
            let base = (&raw const __heap_base).cast_mut();
            let bytes = memory_size::<0>() * PAGE_BYTES - base as usize;
            // SAFETY: nothing else uses the memory after the module's data.
            talc.source.end = unsafe { talc.claim(base, bytes) };
            return talc.source.end.map(|_| ()).ok_or(());
        };
        let pages = (layout.size() + layout.align() + OVERHEAD_BYTES).div_ceil(PAGE_BYTES);
        let grown = memory_grow::<0>(pages);
        if grown == usize::MAX {
            return Err(());
        }
        let new_end = ((grown + pages) * PAGE_BYTES) as *mut u8;
        // SAFETY: nobody else grows the memory, so the new pages begin where the heap ends.
        talc.source.end = Some(unsafe { talc.extend(end, new_end) });
        Ok(())
    }
}
