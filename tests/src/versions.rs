//! Versions of a plugin by the dozen: the guests `marked-adapter`, `marked-policy` and `hostile-bid`,
//! with something written into them.

use std::path::PathBuf;

use sluice_runtime::{seal, unsealed};

use crate::workspace;

/// Where the mark begins in a component, and how long it is.
const MARK: &[u8] = b"MARK:";
const MARK_BYTES: usize = 64;

/// An adapter of the id `marked`: how it behaves, and what it answers.
pub fn adapter(manner: &str, answer: &str) -> Vec<u8> {
    marked("marked-adapter", manner, answer)
}

/// A policy of the id `marked-policy`: how it behaves, and which candidate it puts first.
pub fn policy(manner: &str, first: usize) -> Vec<u8> {
    marked("marked-policy", manner, &first.to_string())
}

/// A bid strategy of the id `hostile-bid`: how it behaves where a job's text is `marked`.
pub fn strategy(manner: &str) -> Vec<u8> {
    marked("hostile-bid", manner, "")
}

/// A built example of `examples/plugins`.
pub fn example(name: &str) -> Vec<u8> {
    read(workspace::root().join("target/examples").join(name).with_extension("wasm"))
}

/// The same component under another digest: it has one more section that says nothing.
pub fn relabelled(component: &[u8], label: u8) -> Vec<u8> {
    let mut bytes = unsealed(component).to_vec();
    // Custom section, three bytes: a name of one character, and one byte of content.
    bytes.extend([0, 3, 1, b'x', label]);
    seal(&mut bytes);
    bytes
}

fn marked(guest: &str, manner: &str, text: &str) -> Vec<u8> {
    let built = read(workspace::guests(&[guest]).join(guest).with_extension("wasm"));
    let mut bytes = unsealed(&built).to_vec();
    let mark = format!("MARK:{manner}:{text}");
    assert!(mark.len() <= MARK_BYTES, "{mark:?} is too long");
    let places: Vec<usize> = bytes
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 1, "the mark stands once in {guest}");
    let place = &mut bytes[places[0]..places[0] + MARK_BYTES];
    place.fill(b' ');
    place[..mark.len()].copy_from_slice(mark.as_bytes());
    seal(&mut bytes);
    bytes
}

fn read(file: PathBuf) -> Vec<u8> {
    std::fs::read(&file).unwrap_or_else(|error| {
        panic!("{} is not built ({error}): run `tests/run`, or build it by hand as it does", file.display())
    })
}
