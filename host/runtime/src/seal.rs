//! A seal on a component's bytes, so that damage is told from change: a flipped bit in a constant
//! leaves a component that compiles.
//!
//! The last section of what `sluice plugin build` makes: a custom section [`NAME`] with the SHA-256
//! of all bytes before it. It proves nothing about who made the component.

use memchr::memmem;
use sha2::{Digest, Sha256};

/// Name of the custom section with where a component comes from; the seal follows it.
pub const STAMP_NAME: &str = "sluice-plugin";

const NAME: &[u8] = b"sluice-seal";
const DIGEST_BYTES: usize = 32;

/// Section id, length of the section, length of the name.
const HEAD: [u8; 3] = [0, (1 + NAME.len() + DIGEST_BYTES) as u8, NAME.len() as u8];

/// Bytes of the section.
const SEAL_BYTES: usize = HEAD.len() + NAME.len() + DIGEST_BYTES;

/// Where a stamp is looked for: it is a few hundred bytes long.
const STAMP_WITHIN: usize = 2048;

/// What the end of a component says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// None: another tool made the component.
    Absent,
    Whole,
    Broken,
}

/// Adds the seal; the component is not to be changed afterwards.
pub fn seal(component: &mut Vec<u8>) {
    let digest = Sha256::digest(&component);
    component.extend_from_slice(&HEAD);
    component.extend_from_slice(NAME);
    component.extend_from_slice(&digest);
}

/// The component before it was sealed; as it is where there is no seal.
pub fn unsealed(component: &[u8]) -> &[u8] {
    split(component).map_or(component, |(content, _)| content)
}

pub(crate) fn check(component: &[u8]) -> Seal {
    match split(component) {
        Some((content, digest)) if Sha256::digest(content).as_slice() == digest => Seal::Whole,
        Some(_) => Seal::Broken,
        // Whoever stamps, seals: a stamp without a seal has lost it.
        None => {
            let end = &component[component.len().saturating_sub(STAMP_WITHIN)..];
            let stamped = memmem::find(end, STAMP_NAME.as_bytes()).is_some();
            if stamped { Seal::Broken } else { Seal::Absent }
        }
    }
}

fn split(component: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, seal) = component.split_at_checked(component.len().checked_sub(SEAL_BYTES)?)?;
    let digest = seal.strip_prefix(&HEAD)?.strip_prefix(NAME)?;
    Some((content, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        let mut component = b"\0asm\x0d\0\x01\0 and so on".to_vec();
        component.extend_from_slice(b"sluice-plugin{}");
        seal(&mut component);
        component
    }

    #[test]
    fn every_flipped_bit_breaks_it() {
        let whole = sealed();
        assert_eq!(check(&whole), Seal::Whole);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&damaged), Seal::Broken, "bit {bit}");
        }
    }

    #[test]
    fn what_was_never_sealed_is_not_damaged() {
        assert_eq!(check(b""), Seal::Absent);
        assert_eq!(check(b"\0asm\x0d\0\x01\0"), Seal::Absent);
        let whole = sealed();
        assert_eq!(check(unsealed(&whole)), Seal::Broken, "stamped, but the seal is gone");
        let mut again = unsealed(&whole).to_vec();
        seal(&mut again);
        assert_eq!(again, whole);
    }
}
