//! What goes wrong in a call.

use std::hint::black_box;
use std::mem;

pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Deep, but with frames that need nothing of the guest's own stack: what runs out is the host's.
pub fn recurse() -> u64 {
    #[inline(never)]
    fn deeper(level: u64) -> u64 {
        match level {
            u64::MAX => 1,
            level => deeper(level + 1) ^ deeper(level + 2).rotate_left(7),
        }
    }
    deeper(black_box(0))
}

/// Deep, with large frames: what runs out is the guest's stack in its linear memory.
pub fn overflow() -> u64 {
    #[inline(never)]
    fn deeper(level: u64) -> u64 {
        let frame = black_box([level; 128]);
        match level {
            u64::MAX => frame[0],
            level => deeper(level + 1) ^ frame[usize::from(level as u8 & 127)],
        }
    }
    deeper(black_box(0))
}

pub fn hoard() -> ! {
    loop {
        // Reserved, not written: that would be a matter of time.
        mem::forget(black_box(Vec::<u8>::with_capacity(1024 * 1024)));
    }
}

/// An order of 100 MB, most of which lies beyond the guest's memory.
pub fn huge() -> Vec<u32> {
    const ITEMS: usize = 100 * 1024 * 1024 / size_of::<u32>();
    let buffer = mem::ManuallyDrop::new(vec![0_u32; 1024]).as_mut_ptr();
    // SAFETY: none. It is handed over, and the host is to refuse before it is read or freed.
    unsafe { Vec::from_raw_parts(buffer, ITEMS, ITEMS) }
}
