//! What of a key is written down, and what is not.

use super::*;

#[test]
fn each_act_is_in_the_audit_also_when_it_is_refused() {
    let mut keys = Keys::new();
    let (id, _) = keys.create("a");
    let (nobody, _) = stranger();
    let _ = keys.store.create("admin 10.0.0.9", &named("a"), NOW_MS + 2).unwrap();
    keys.rotate(id, MINUTE, NOW_MS);
    for id in [nobody, id, id] {
        let _ = keys.revoke(id);
    }
    let _ = keys.store.rotate("cli", id, MINUTE, NOW_MS).unwrap();
    let entries = keys.audit();
    let told: Vec<(&str, &str, &str)> = entries
        .iter()
        .map(|entry| (entry.act.as_str(), entry.subject.as_str(), entry.outcome.as_str()))
        .collect();
    let (id, nobody) = (id.to_string(), nobody.to_string());
    let expected = [
        ("key.create", id.as_str(), "done"),
        ("key.create", "a", "name_taken"),
        ("key.rotate", &id, "done"),
        ("key.revoke", &nobody, "unknown"),
        ("key.revoke", &id, "done"),
        ("key.revoke", &id, "already_revoked"),
        ("key.rotate", &id, "revoked"),
    ];
    assert_eq!(told, expected);
    assert_eq!((entries[1].actor.as_str(), entries[1].at_ms), ("admin 10.0.0.9", NOW_MS + 2));
    let detail: Draft = serde_json::from_str(&entries[0].detail).unwrap();
    assert_eq!(detail, named("a"));
    assert_eq!(entries[2].detail, format!(r#"{{"before_until_ms":{}}}"#, NOW_MS + MINUTE_MS));
    assert_eq!(keys.ring().generation(), 3, "acts that change nothing raise nothing");
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift) as usize & 63]))
    });
    groups.collect()
}

/// A secret in the ways it may hide in: plain, hex, percent-encoded, and base64 at each alignment.
fn disguises(token: &str) -> Vec<String> {
    let secret = &token[23..];
    let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<String>();
    let mut disguises = vec![
        secret.to_owned(),
        secret[..21].to_owned(),
        secret[22..].to_owned(),
        each(|byte| format!("{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        each(|byte| format!("%{byte:02x}")),
        each(|byte| format!("%{byte:02X}")),
    ];
    disguises.extend((0..3).map(|skip| base64(&secret.as_bytes()[skip..])));
    disguises
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn no_secret_is_in_the_files_nor_in_what_is_printed() {
    let mut keys = Keys::new();
    let (id, first) = keys.create("a");
    let (second, _) = keys.rotate(id, MINUTE, NOW_MS);
    let Created::Done { key: fresh, record, generation } =
        keys.store.create("cli", &named("b"), NOW_MS).unwrap()
    else {
        panic!("b is taken");
    };
    let mut printed = format!("{fresh:?} {record:?} {:?} {:?}", keys.ring(), keys.store.list().unwrap());
    let third = fresh.reveal();
    let done = Created::Done { key: NewKey::draw(id).unwrap(), record, generation };
    printed.push_str(&format!("{done:?} {:?}", keys.audit()));
    printed.push_str(&format!("{:?}", keys.ring().identify(&second, NOW_MS)));
    let mut files = 0;
    for file in std::fs::read_dir(keys.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += usize::from(contains(&bytes, id.as_str()));
        for token in [&first, &second, &third] {
            for disguise in disguises(token) {
                assert!(!contains(&bytes, &disguise), "{disguise}");
                assert!(!printed.contains(&disguise), "{disguise}");
            }
        }
    }
    assert!(files > 0, "the control: what is stored is found");
    let encoded = base64(format!("x{first}").as_bytes());
    assert!(disguises(&first).iter().any(|disguise| encoded.contains(disguise)), "the control: base64");
}

#[test]
fn the_database_has_the_digests_of_whole_keys() {
    let mut keys = Keys::new();
    let (_, token) = keys.create("a");
    let query = "SELECT digest FROM keys";
    let stored: Vec<u8> = keys.store.store().connection().query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(stored, digest(&token).0);
    assert_ne!(stored, token.as_bytes());
}
