//! Asks the host for all that it might tell, then answers with that and its whole memory.

use core::arch::wasm32::memory_size;

use sluice_plugin::adapter::Inbound;

/// Bytes of a page of linear memory.
const PAGE_BYTES: usize = 64 * 1024;

/// Stands between what was asked and the memory.
const MEMORY: &[u8] = b"\n--memory--\n";

/// Headers that may hold a credential, and ways to ask for one that a host might forget.
const NAMES: [&str; 36] = [
    "authorization",
    "Authorization",
    "AUTHORIZATION",
    " authorization",
    "authorization ",
    "authorization:",
    "authorization\0",
    "\u{ff41}uthorization",
    "api-key",
    "api_key",
    "apikey",
    "x-api-key",
    "X-Api-Key",
    "X-API-KEY",
    "x_api_key",
    "x-goog-api-key",
    "x-auth-token",
    "cookie",
    "Cookie",
    "COOKIE",
    "cookie2",
    "set-cookie",
    "Set-Cookie",
    "proxy-authorization",
    "Proxy-Authorization",
    "proxy-authenticate",
    "www-authenticate",
    "x-amz-security-token",
    "x-forwarded-authorization",
    "forwarded",
    "host",
    "*",
    "",
    "/",
    "user-agent",
    "x-let-through",
];

/// Pointers that lead into the body, or that a host might take for something else.
const POINTERS: [&str; 10] = [
    "",
    "/",
    "/messages",
    "/model",
    "/headers",
    "/headers/authorization",
    "/../authorization",
    "/secrets/api-key",
    "/__proto__",
    "/user",
];

pub fn everything(request: &Inbound) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut note = |asked: &str, told: Option<&[u8]>| {
        let told = told.unwrap_or(b"(nothing)");
        seen.extend_from_slice(asked.as_bytes());
        seen.extend_from_slice(b" = ");
        seen.extend_from_slice(told);
        seen.push(b'\n');
    };
    for name in NAMES {
        note(name, request.header(name).as_deref().map(str::as_bytes));
    }
    for pointer in POINTERS {
        note(pointer, request.field(pointer).as_deref().map(str::as_bytes));
    }
    note("body", Some(&request.body()));
    let (shape, identity) = (request.shape(), request.identity());
    note("shape", Some(format!("{shape:?}").as_bytes()));
    note("sizes", Some(format!("{:?}", request.sizes()).as_bytes()));
    note("identity", Some(format!("{identity:?}").as_bytes()));
    seen.extend_from_slice(MEMORY);
    // Measured first: what the copy itself needs is not part of it.
    let bytes = memory_size(0) * PAGE_BYTES;
    // SAFETY: all of linear memory can be read; it begins at 1, since no slice may begin at 0.
    seen.extend_from_slice(unsafe { std::slice::from_raw_parts(1 as *const u8, bytes - 1) });
    seen
}
