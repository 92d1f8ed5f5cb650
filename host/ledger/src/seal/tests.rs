//! What is sealed is found nowhere, opens with its own key alone, and only as what it was sealed as.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use super::master::NotAMasterKey;
use super::*;

const SECRET: &[u8] = b"canary-Jx83mPqLw02Vz";

fn act(detail: &serde_json::Value) -> Act<'_> {
    Act { at_ms: 5, actor: "cli", act: "market.login", subject: "somebody", detail, outcome: "done" }
}

fn keep(store: &mut SecretStore, name: Name, plain: &[u8], expires_ms: Option<u64>) -> Result<(), SealError> {
    store.keep(name, plain, expires_ms, &act(&json!({})))
}

fn master(digit: &str) -> MasterKey {
    MasterKey::from_hex(&digit.repeat(64)).unwrap()
}

fn configured(folder: &TempDir, digit: &str) -> SecretStore {
    SecretStore::open(folder.path(), Some(master(digit))).unwrap()
}

/// All bytes of all files of the folder.
fn bytes(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|file| std::fs::read(file).unwrap()).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_is_kept_reads_back_and_lies_nowhere_in_clear() {
    let folder = TempDir::new().unwrap();
    let mut store = SecretStore::open(folder.path(), None).unwrap();
    assert_eq!(store.read(Name::MarketKey).unwrap(), None);
    keep(&mut store, Name::MarketKey, SECRET, None).unwrap();
    keep(&mut store, Name::MarketToken, b"a token", Some(77)).unwrap();
    let jobs = store.job_secret(9).unwrap();
    let found = store.read(Name::MarketKey).unwrap().unwrap();
    assert_eq!((found.plain.reveal(), found.sealed_ms, found.expires_ms), (SECRET, 5, None));
    assert_eq!(store.read(Name::MarketToken).unwrap().unwrap().expires_ms, Some(77));
    let all = bytes(folder.path());
    assert!(holds(&all, b"market.login") && holds(&all, b"market.key"), "the control: it is looked at");
    assert!(!holds(&all, SECRET) && !holds(&all, b"a token") && !holds(&all, &jobs.0));
    // Another process reads it too, and no two seals are alike.
    let mut other = SecretStore::open(folder.path(), None).unwrap();
    assert_eq!(other.read(Name::MarketKey).unwrap().unwrap(), found);
    let sealed = row(other.store.connection(), Name::MarketKey).unwrap().unwrap().sealed;
    keep(&mut other, Name::MarketKey, SECRET, None).unwrap();
    assert_ne!(row(store.store.connection(), Name::MarketKey).unwrap().unwrap().sealed, sealed);
    assert_eq!(store.store().acts(10, None).unwrap().len(), 3, "each with its act");
    let shown = format!("{found:?} {:?} {jobs:?}", MasterKey::read(folder.path()).unwrap());
    assert!(!shown.contains("canary") && !shown.contains(&format!("{:?}", jobs.0)), "{shown}");
}

#[test]
fn the_folder_s_key_is_made_once_and_for_nobody_else() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("master.key");
    let mut store = SecretStore::open(folder.path(), None).unwrap();
    assert!(store.read(Name::JobSecret).unwrap().is_none() && !file.exists(), "not before it is needed");
    store.prepare().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let made = std::fs::read_to_string(&file).unwrap();
    let jobs = store.job_secret(1).unwrap();
    let again = SecretStore::open(folder.path(), None).unwrap().job_secret(2).unwrap();
    assert_eq!((&again, std::fs::read_to_string(&file).unwrap()), (&jobs, made));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let error = store.job_secret(3).unwrap_err();
    assert!(matches!(error, SealError::Master(MasterKeyError::Exposed { .. })), "{error:?}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&file, "hello").unwrap();
    let error = store.job_secret(3).unwrap_err();
    assert!(matches!(error, SealError::Master(MasterKeyError::Form { .. })), "{error:?}");
    // No other one is made while something is sealed with it.
    std::fs::remove_file(&file).unwrap();
    for error in [store.prepare().err(), store.job_secret(3).err(), store.read(Name::JobSecret).err()] {
        assert!(matches!(error, Some(SealError::Master(MasterKeyError::Missing { .. }))), "{error:?}");
        assert!(!file.exists());
    }
    store.forget_all(&act(&json!({}))).unwrap();
    assert_ne!(store.job_secret(4).unwrap(), jobs);
}

#[test]
fn many_who_ask_first_get_the_same() {
    let folder = TempDir::new().unwrap();
    drop(SecretStore::open(folder.path(), None).unwrap());
    let ask = || SecretStore::open(folder.path(), None).unwrap().job_secret(1).unwrap();
    let asked: Vec<JobSecret> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(asked.iter().all(|secret| *secret == asked[0]));
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let drafts: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("master.key.")).collect();
    assert!(drafts.is_empty(), "{drafts:?}");
}

#[test]
fn another_master_key_opens_nothing_and_adds_nothing() {
    let folder = TempDir::new().unwrap();
    keep(&mut configured(&folder, "a"), Name::MarketKey, SECRET, None).unwrap();
    let mut other = configured(&folder, "b");
    let errors = [
        other.read(Name::MarketKey).err(),
        other.prepare().err(),
        keep(&mut other, Name::MarketToken, b"x", None).err(),
        keep(&mut other, Name::MarketKey, b"x", None).err(),
        other.job_secret(1).err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(SealError::OtherMaster)), "{error:?}");
    }
    assert_eq!(other.store().acts(10, None).unwrap().len(), 1, "no act of what was not done");
    assert_eq!(configured(&folder, "a").read(Name::MarketKey).unwrap().unwrap().plain.reveal(), SECRET);
}

#[test]
fn what_was_changed_does_not_open() {
    let changes = [
        "UPDATE secrets SET sealed = zeroblob(60) WHERE name = 'market.key'",
        "UPDATE secrets SET sealed = x'00' WHERE name = 'market.key'",
        "UPDATE secrets SET sealed = substr(sealed, 1, 30) WHERE name = 'market.key'",
        "UPDATE secrets SET expires_ms = 9000 WHERE name = 'market.key'",
        "UPDATE secrets SET expires_ms = NULL WHERE name = 'market.key'",
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'market.token') \
         WHERE name = 'market.key'",
    ];
    for change in changes {
        let folder = TempDir::new().unwrap();
        let mut store = configured(&folder, "a");
        keep(&mut store, Name::MarketKey, SECRET, Some(8000)).unwrap();
        keep(&mut store, Name::MarketToken, SECRET, Some(8000)).unwrap();
        assert_eq!(store.store.connection().execute(change, []).unwrap(), 1);
        let error = store.read(Name::MarketKey).unwrap_err();
        assert!(matches!(error, SealError::Changed(Name::MarketKey)), "{change}: {error:?}");
        assert!(store.read(Name::MarketToken).is_ok(), "the control");
    }
}

#[test]
fn lengths_have_bounds() {
    let folder = TempDir::new().unwrap();
    let mut store = configured(&folder, "a");
    for plain in [vec![], vec![b'x'; PLAIN_BYTES_MAX + 1]] {
        assert!(matches!(keep(&mut store, Name::MarketKey, &plain, None), Err(SealError::Length)));
    }
    keep(&mut store, Name::MarketKey, &[b'x'; PLAIN_BYTES_MAX], None).unwrap();
}

#[test]
fn only_hexadecimal_digits_are_a_master_key() {
    let good = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCD";
    assert!(MasterKey::from_hex(&format!(" {good}\n")).is_ok());
    for text in
        ["", "abc", &good[1..], &format!("{good}0"), &good.replace('0', "g"), &good.replace("01", "é")]
    {
        assert_eq!(MasterKey::from_hex(text), Err(NotAMasterKey), "{text}");
    }
}

#[test]
fn derived_secrets_belong_to_their_text() {
    let secret = JobSecret([7; 32]);
    assert_eq!(secret.derive("a"), JobSecret([7; 32]).derive("a"));
    assert_ne!(secret.derive("a"), secret.derive("b"));
    assert_ne!(secret.derive("a"), JobSecret([8; 32]).derive("a"));
    // RFC 4231, case 2: keys that are shorter are filled up with zeros.
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let derived = derived(&key, b"what do ya want for nothing?");
    assert_eq!(derived.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), wanted);
}
