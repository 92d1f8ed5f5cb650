//! What a client shows: an id to be found by, and a secret to be believed by; and what is kept of it.
//!
//! A key reads `sk-sluice-<id>-<secret>`, the id and the secret being letters and digits.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use subtle::{Choice, ConstantTimeEq};

/// What keys begin with, so that scanners of leaked secrets know one.
const PREFIX: &str = "sk-sluice-";

/// 71 bits: of a million million keys hardly two have the same.
const ID_CHARS: usize = 12;

/// 256 bits: 62 to the power of 43 is more than 2 to the power of 256.
const SECRET_CHARS: usize = 43;

/// What one block of SHA-256 has room for; a second one would double the work of each request.
const BLOCK_CHARS: usize = 55;

const _: () = assert!(ID_CHARS + SECRET_CHARS <= BLOCK_CHARS);

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a key is found by. No secret: it is in logs and in the audit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_CHARS]);

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a key's id: {ID_CHARS} letters and digits")]
pub struct NotAnId;

/// A key that was just made. Whoever has it may show it to its owner, once.
#[must_use = "nobody can read it again"]
pub struct NewKey {
    text: String,
    digest: Digest,
}

/// A text that has the form of a key.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'t> {
    pub(crate) id: KeyId,
    secret: &'t str,
}

/// What is kept of a key: SHA-256 of its id and its secret, which is all that keys differ in.
///
/// A plain hash: slow ones make up for secrets that people choose. This secret is random, and who
/// tries 2 to the power of 256 of them is not stopped by a slow hash, but each request would be.
#[derive(Clone, Copy)]
pub(crate) struct Digest(pub(crate) [u8; Digest::BYTES]);

/// The digests that a key is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secrets {
    pub(crate) current: Digest,
    pub(crate) before: Option<Before>,
}

/// The secret before the last rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) digest: Digest,
    /// The first millisecond at which it does not work any more.
    pub(crate) until_ms: u64,
}

impl KeyId {
    pub(crate) fn random() -> Result<KeyId, getrandom::Error> {
        random().map(KeyId)
    }

    /// Its letters and digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<KeyId, NotAnId> {
        let chars: [u8; ID_CHARS] = text.as_bytes().try_into().map_err(|_| NotAnId)?;
        if is_plain(text) { Ok(KeyId(chars)) } else { Err(NotAnId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl NewKey {
    pub(crate) fn draw(id: KeyId) -> Result<NewKey, getrandom::Error> {
        let secret: [u8; SECRET_CHARS] = random()?;
        let secret = std::str::from_utf8(&secret).unwrap_or_default();
        let digest = Shown { id, secret }.digest();
        Ok(NewKey { text: format!("{PREFIX}{id}-{secret}"), digest })
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The key, to be shown to its owner.
    pub fn reveal(self) -> String {
        self.text
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(..)")
    }
}

impl<'t> Shown<'t> {
    /// What a client's text shows, if it has the form of a key.
    pub(crate) fn read(text: &'t str) -> Option<Shown<'t>> {
        let (id, rest) = text.strip_prefix(PREFIX)?.split_at_checked(ID_CHARS)?;
        let secret = rest.strip_prefix('-')?;
        if secret.len() != SECRET_CHARS || !is_plain(secret) {
            return None;
        }
        Some(Shown { id: id.parse().ok()?, secret })
    }

    pub(crate) fn digest(self) -> Digest {
        // sha2's took a microsecond of each request where the processor has no instructions for it.
        let mut hash = Context::new(&SHA256);
        hash.update(&self.id.0);
        hash.update(self.secret.as_bytes());
        let mut digest = Digest([0; Digest::BYTES]);
        digest.0.copy_from_slice(hash.finish().as_ref());
        digest
    }
}

impl Digest {
    pub(crate) const BYTES: usize = 32;

    /// In a time that does not depend on where they differ.
    fn is(&self, other: &Digest) -> Choice {
        // By words: byte by byte it takes longer than the hash.
        let words = |digest: &Digest| {
            let mut words = [0; Digest::BYTES / 8];
            for (word, bytes) in words.iter_mut().zip(digest.0.as_chunks().0) {
                *word = u64::from_ne_bytes(*bytes);
            }
            words
        };
        words(self).ct_eq(&words(other))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl Secrets {
    /// Those of nobody. No text is known whose digest is all zeros.
    pub(crate) const NOBODY: Secrets = Secrets { current: Digest([0; Digest::BYTES]), before: None };

    /// Whether a key with this digest works. Both are always looked at, so that the time says
    /// neither which of them it is nor whether there are two.
    pub(crate) fn believe(&self, given: &Digest, now_ms: u64) -> bool {
        let before = self.before.unwrap_or(Before { digest: Secrets::NOBODY.current, until_ms: 0 });
        let in_grace = Choice::from(u8::from(now_ms < before.until_ms));
        (self.current.is(given) | (before.digest.is(given) & in_grace)).into()
    }
}

fn is_plain(text: &str) -> bool {
    // Without a branch for each byte it is many at a time.
    text.bytes().fold(true, |plain, byte| plain & byte.is_ascii_alphanumeric())
}

/// Each character is as likely as any other: what is beyond the alphabet is drawn again.
fn random<const CHARS: usize>() -> Result<[u8; CHARS], getrandom::Error> {
    let mut chars = [0; CHARS];
    let mut count = 0;
    while count < CHARS {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        let drawn = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        for (place, drawn) in chars[count..].iter_mut().zip(drawn) {
            *place = *drawn;
            count += 1;
        }
    }
    Ok(chars)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn new() -> (KeyId, String) {
        let id = KeyId::random().unwrap();
        (id, NewKey::draw(id).unwrap().reveal())
    }

    fn digest(key: &str) -> Digest {
        Shown::read(key).unwrap().digest()
    }

    const KEY_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS;

    #[test]
    fn a_secret_has_its_bits() {
        let distinct: HashSet<u8> = ALPHABET.iter().copied().collect();
        assert!(distinct.len() == 62 && is_plain(std::str::from_utf8(ALPHABET).unwrap()));
        assert!((62_f64).log2() * SECRET_CHARS as f64 > 256.0);
    }

    /// 1000 secrets are 43,000 characters: each of the alphabet is expected 694 times, give or take 26.
    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let mut seen = [0_u32; 128];
        for _ in 0..1000 {
            random::<SECRET_CHARS>().unwrap().iter().for_each(|char| seen[usize::from(*char)] += 1);
        }
        for char in ALPHABET {
            let count = seen[usize::from(*char)];
            assert!((500..900).contains(&count), "{:?}: {count}", char::from(*char));
        }
        assert_eq!(seen.iter().sum::<u32>(), 43_000);
        assert_eq!(seen.iter().filter(|count| **count > 0).count(), 62);
    }

    #[test]
    fn a_key_names_its_id_and_no_two_are_the_same() {
        let keys: Vec<(KeyId, String)> = (0..1000).map(|_| new()).collect();
        for (id, key) in &keys {
            assert_eq!(Shown::read(key).map(|shown| shown.id), Some(*id));
            assert_eq!(id.to_string().parse(), Ok(*id));
            assert!(key.starts_with("sk-sluice-") && key.len() == 66, "{key}");
        }
        let distinct: HashSet<&str> = keys.iter().map(|(_, key)| &key[key.len() - SECRET_CHARS..]).collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn what_has_another_form_is_no_key() {
        let (_, key) = new();
        let last = KEY_CHARS - 1;
        let mut bad = vec![
            String::new(),
            "sk-sluice-".to_owned(),
            format!("{key}0"),
            format!(" {key}"),
            key[..last].to_owned(),
            key.replace("sk-sluice-", "sk-SLUICE-"),
            format!("{}-", &key[..last]),
            format!("{}é", &key[..last - 1]),
            format!("{}{}", "é", &key[2..]),
            // The two parts have other lengths.
            format!("{}-{}", &key[..21], &key[22..].replacen('-', "0", 1)),
        ];
        bad.extend([9, 22].map(|at| format!("{}x{}", &key[..at], &key[at + 1..])));
        for text in bad {
            assert!(Shown::read(&text).is_none(), "{text}");
        }
        assert!(Shown::read(&key).is_some(), "the control");
        for text in ["", "0123456789a", "0123456789abc", "0123456789a-", "0123456789é"] {
            assert_eq!(text.parse::<KeyId>(), Err(NotAnId), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_not_what_is_shown() {
        let (id, key) = new();
        let digest = digest(&key);
        let hex: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = &key[KEY_CHARS - SECRET_CHARS..];
        assert_ne!(digest.0.as_slice(), &key.as_bytes()[..32]);
        assert!(!hex.contains(secret) && !key.contains(&hex));
        let secrets = Secrets { current: digest, before: Some(Before { digest, until_ms: 1 }) };
        let shown = format!("{:?} {:?} {secrets:?} {id:?}", NewKey { text: key.clone(), digest }, digest);
        assert!(!shown.contains(secret) && !shown.contains(&hex), "{shown}");
        assert!(!shown.contains(&format!("{:?}", digest.0)), "{shown}");
    }

    #[test]
    fn nobody_is_believed_at_any_time() {
        let (_, key) = new();
        for now_ms in [0, 1, u64::MAX] {
            assert!(!Secrets::NOBODY.believe(&digest(&key), now_ms));
        }
        let none_before = Secrets { current: digest(&key), before: None };
        assert!(!none_before.believe(&Secrets::NOBODY.current, 0), "the dummy is no secret");
        assert!(none_before.believe(&digest(&key), 0), "the control");
    }
}
