//! Whether bytes hold a secret, plainly or in one of the forms that it may take on its way.

/// The form in which `secret` stands in `bytes`, if it does.
pub fn found(bytes: &[u8], secret: &str) -> Option<&'static str> {
    let forms = forms(secret);
    let found = forms.iter().find(|(_, form)| contains(bytes, form));
    found.map(|(name, _)| *name)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return false };
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| byte == first) {
        at += next;
        if bytes[at..].starts_with(part) {
            return true;
        }
        at += 1;
    }
    false
}

fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let each = |show: fn(&u8) -> String| bytes.iter().map(show).collect::<String>().into_bytes();
    let mut forms = vec![
        ("plain", bytes.to_vec()),
        ("backwards", bytes.iter().rev().copied().collect()),
        ("utf-16", bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("hex", each(|byte| format!("{byte:02x}"))),
        ("HEX", each(|byte| format!("{byte:02X}"))),
        ("percent", each(|byte| format!("%{byte:02x}"))),
        ("PERCENT", each(|byte| format!("%{byte:02X}"))),
        ("percent where needed", percent(bytes)),
        ("list of bytes", format!("{bytes:?}").trim_matches(['[', ']']).as_bytes().to_vec()),
    ];
    for shift in 0..3 {
        let inner = base64_inner(bytes, shift);
        let url_safe = inner.iter().map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => *byte,
        });
        forms.push(("base64 for URLs", url_safe.collect()));
        forms.push(("base64", inner));
    }
    forms
}

fn percent(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.into_bytes()
}

/// The characters of base64 that depend on `bytes` alone when `shift` other bytes stand before.
fn base64_inner(bytes: &[u8], shift: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let from = (3 - shift) % 3;
    let groups = bytes[from..].chunks_exact(3);
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|low| ALPHABET[bits >> low & 63])
    };
    groups.flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::found;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "sk-canary-0123";
        let table = [
            ("say sk-canary-0123!", Some("plain")),
            ("3210-yranac-ks", Some("backwards")),
            ("736b2d63616e6172792d30313233", Some("hex")),
            ("%73%6B%2D%63%61%6E%61%72%79%2D%30%31%32%33", Some("PERCENT")),
            ("sk%2Dcanary%2D0123", Some("percent where needed")),
            ("c2stY2FuYXJ5LTAxMjM=", Some("base64")), // sk-canary-0123
            ("QmVhcmVyIHNrLWNhbmFyeS0wMTIz", Some("base64")), // Bearer sk-canary-0123
            ("LHNrLWNhbmFyeS0wMTIz", Some("base64")), // ,sk-canary-0123
            ("sk-canary-012", None),
            ("", None),
        ];
        for (text, form) in table {
            let found = found(text.as_bytes(), secret).map(|form| form.trim_end_matches(" for URLs"));
            assert_eq!(found, form, "{text}");
        }
    }
}
