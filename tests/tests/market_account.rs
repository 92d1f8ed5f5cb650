//! The account at the market from outside: what is asked, what is said, and where no secret is.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use rusqlite::Connection;
use sluice_tests::command::{Run, run};
use sluice_tests::little_market::{LittleMarket, answer};
use sluice_tests::secrets::found;
use sluice_tests::{Gateway, Options};
use tempfile::TempDir;

const PASSWORD: &str = "canary-password-Gh37kLq";

/// A token whose end, in its middle part, is {"exp":4102444800}: the year 2100.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.canary-signature-Tn62xW";

/// The same of the year 2001.
const OLD_TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEwMDAwMDAwMDB9.canary-signature-Qp88zV";

const KEYS: [&str; 2] = ["mk-canary-first-Rw51bN", "mk-canary-second-Yc94dF"];

/// Also what is quiet unless it is named.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";

const REGISTER: &[&str] =
    &["register", "--email", "a@b.example", "--username", "anna", "--full-name", "Anna B"];
const LOGIN: &[&str] = &["login", "--username", "anna"];
const KEY: &[&str] = &["create-api-key", "--name", "gateway"];

/// A data folder's owner and the market.
struct Desk {
    market: LittleMarket,
    folder: TempDir,
}

impl Desk {
    fn new(token: &str, more: &str) -> Desk {
        let (market, folder) = (LittleMarket::start(token, &KEYS), TempDir::new().unwrap());
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[market]\nbase_url = \"{}\"\n{more}\
             [upstreams.echo]\nadapter = \"echo\"\n[[models]]\nname = \"echo\"\ntargets = [{{ upstream = \"echo\" }}]\n",
            market.url()
        );
        std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
        Desk { market, folder }
    }

    /// One that is logged in.
    fn logged_in(token: &str, more: &str) -> Desk {
        let desk = Desk::new(token, more);
        for arguments in [REGISTER, LOGIN] {
            let run = desk.run(arguments);
            assert_eq!(run.code, Some(0), "{run:?}");
        }
        desk.market.requests();
        desk
    }

    fn run(&self, arguments: &[&str]) -> Run {
        market(self.folder.path(), arguments)
    }

    /// What was printed by one that goes well.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{run:?}");
        run.printed()
    }

    /// The error of one that does not.
    #[track_caller]
    fn refused(&self, arguments: &[&str], parts: &[&str]) {
        let run = self.run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        for part in parts {
            assert!(run.stderr.contains(part), "{arguments:?}: no {part:?} in {}", run.stderr);
        }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Acts and what came of them, the oldest first.
    fn audit(&self) -> Vec<String> {
        let database = Connection::open(self.data().join("sluice.db")).unwrap();
        let mut query = database
            .prepare("SELECT act || ' ' || subject || ' ' || outcome FROM audit ORDER BY id")
            .unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }
}

fn market(folder: &Path, arguments: &[&str]) -> Run {
    // A proxy that is not there: who goes by it fails.
    let proxies =
        ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"].map(|name| (name, "http://127.0.0.1:1"));
    let own = [("SLUICE_MARKET_PASSWORD", PASSWORD), ("SLUICE_LOG", EVERYTHING)];
    let variables = [&own[..], &proxies].concat();
    let run = run(folder, &[&["market"], arguments].concat(), &variables);
    assert_clean("what is printed", run.printed().as_bytes());
    run
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    for secret in [PASSWORD, TOKEN, OLD_TOKEN, KEYS[0], KEYS[1]] {
        assert_eq!(found(bytes, secret), None, "{secret} is in {what}");
    }
}

#[test]
fn an_account_is_made_and_its_secrets_are_nowhere() {
    let desk = Desk::new(TOKEN, "");
    let status = desk.done(&["status"]);
    for part in ["login    none", "API key  none", "balance  unknown: nobody is logged in"] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
    assert_eq!(desk.market.requests().len(), 0, "nothing to show, nothing asked");
    assert!(!desk.data().join("master.key").exists(), "nothing to seal");
    assert!(desk.done(REGISTER).contains("sluice market login --username anna"));
    assert!(desk.done(LOGIN).contains("logged in until 2100-01-01T00:00:00Z"));
    let printed = desk.done(KEY);
    assert!(printed.contains("the key \"gateway\" is kept"), "{printed}");
    assert!(printed.contains("TRACE"), "the control: it is logged in detail:\n{printed}");
    let deposit = desk.run(&["deposit", "5.10", "--description", "first"]);
    assert_eq!(
        (deposit.code, deposit.stdout.as_str()),
        (Some(0), "https://pay.example/c/1\n"),
        "{deposit:?}"
    );
    let balance = desk.run(&["balance"]);
    assert_eq!(balance.stdout, "available  12.345 usd\nheld       0.00 usd\n");
    let status = desk.done(&["status"]);
    for part in ["anna (a@b.example), until 2100-01-01T00:00:00Z", "API key  kept since 20", "12.345 usd"] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
    // The control: the market has them all.
    let requests = desk.market.requests();
    let holds = |part: &str| requests.iter().any(|request| request.contains(part));
    assert!(holds(PASSWORD) && holds(TOKEN) && holds(r#"{"amount":5.10,"description":"first"}"#));
    let mut files = 0;
    for file in std::fs::read_dir(desk.data()).unwrap() {
        let file = file.unwrap().path();
        assert_clean(&file.display().to_string(), &std::fs::read(&file).unwrap());
        files += 1;
    }
    assert!(files >= 2, "the database and the master key");
    let wanted = [
        "market.register anna done".to_owned(),
        "market.login anna done".into(),
        "market.key gateway done".into(),
        format!("market.deposit {}/ done", desk.market.url()),
    ];
    assert_eq!(desk.audit(), wanted);
}

#[test]
fn what_is_refused_says_what_to_do() {
    let desk = Desk::new(TOKEN, "");
    desk.refused(LOGIN, &["Incorrect username", "does not know this name with this password"]);
    desk.refused(KEY, &["nobody is logged in", "sluice market login"]);
    desk.refused(&["balance"], &["nobody is logged in"]);
    desk.done(REGISTER);
    desk.refused(REGISTER, &["(400): Username already registered", "another name"]);
    let nameless = &["register", "--email", "", "--username", "b", "--full-name", "B"];
    desk.refused(nameless, &["(422): email: field required"]);
    desk.done(LOGIN);
    for amount in ["0", "-1", "1e3", "much", "0.0000000001", "100000.01"] {
        desk.refused(&["deposit", "--", amount], &["dollar"]);
    }
    desk.done(KEY);
    desk.refused(KEY, &["there is a key already", "--replace"]);
    desk.done(&[KEY, &["--replace"]].concat());
    let outcomes = desk.audit();
    assert_eq!(
        outcomes[..3],
        ["market.login anna unauthorized", "market.register anna done", "market.register anna refused"]
    );
    // A login that the market does not accept any more, though its time is not over.
    desk.market.says(Some(answer("401 No", "", r#"{"detail":"Could not validate credentials"}"#)));
    desk.refused(
        &["deposit", "1"],
        &["Could not validate credentials", "log in again with `sluice market login"],
    );
    let status = desk.done(&["status"]);
    assert!(status.contains("unknown: the market does not accept the credential"), "{status}");
}

#[test]
fn a_market_without_manners_is_survived() {
    let desk = Desk::logged_in(TOKEN, "");
    let elsewhere = LittleMarket::start(TOKEN, &KEYS);
    let location = format!("location: {}/v1/payment/balance\r\n", elsewhere.url());
    let table: [(Vec<u8>, &[&str]); 8] = [
        (answer("500 No", "", "trace of a crash"), &["fails (500)", "try again later"]),
        (answer("429 No", "retry-after: 7\r\n", ""), &["asks to wait for 7 s", "try again later"]),
        (answer("307 Go", &location, ""), &["leads elsewhere", "base_url"]),
        (answer("200 Yes", "", "<html>"), &["another form", "base_url"]),
        (answer("200 Yes", "", &"x".repeat(9 << 20)), &["longer than 8 MiB"]),
        (answer("403 No", "", r#"{"detail":"no\u001b[31m"}"#), &["(403): no [31m;"]),
        (b"HTTP/1.1 200 Yes\r\ncontent-length: 9\r\n\r\n{".to_vec(), &["cannot be reached"]),
        (b"SSH-2.0\r\n".to_vec(), &["cannot be reached", "base_url"]),
    ];
    for (bytes, parts) in table {
        desk.market.says(Some(bytes));
        desk.refused(&["balance"], parts);
        desk.refused(LOGIN, parts);
        desk.refused(KEY, parts);
    }
    assert_eq!(elsewhere.requests().len(), 0, "nobody is followed");
    for (arguments, sent) in [(LOGIN, PASSWORD), (KEY, TOKEN), (&["balance"], TOKEN)] {
        let echo = format!(r#"{{"detail":[{{"msg":"bad {sent}","loc":["x"],"input":"{sent}"}}]}}"#);
        desk.market.says(Some(answer("422 No", "", &echo)));
        desk.refused(arguments, &["(422): x: bad …;"]);
    }
    desk.market.says(None);
    desk.done(&["balance"]);
    let status = desk.done(&["status"]);
    assert!(status.contains("API key  none"), "nothing was kept: {status}");
}

#[test]
fn a_login_ends() {
    let desk = Desk::logged_in(OLD_TOKEN, "");
    desk.refused(KEY, &["the login has expired, at 2001-09-09T01:46:40Z", "log in again"]);
    desk.refused(&["balance"], &["the login has expired"]);
    assert!(desk.done(&["status"]).contains("login    expired 2001-09-09"));
    assert_eq!(desk.market.requests().len(), 0, "it is not shown any more");
}

#[test]
fn a_key_of_the_configuration_goes_before() {
    let desk = Desk::new(TOKEN, "api_key = \"file:key\"\n");
    std::fs::write(desk.folder.path().join("key"), KEYS[0]).unwrap();
    desk.done(&["balance"]);
    assert!(desk.market.requests()[0].contains(&format!("x-api-key: {}\r\n", KEYS[0])));
    assert!(desk.done(&["status"]).contains("API key  of the configuration"));
    desk.done(REGISTER);
    desk.done(LOGIN);
    assert!(desk.done(KEY).contains("goes before it"));
}

#[test]
fn another_master_key_is_told_apart() {
    let desk = Desk::logged_in(TOKEN, "");
    desk.done(KEY);
    let (file, away) = (desk.data().join("master.key"), desk.folder.path().join("away"));
    std::fs::rename(&file, &away).unwrap();
    for arguments in [LOGIN, KEY, &["balance"], &["status"]] {
        desk.refused(arguments, &["master.key is not there", "put it back", "sluice market forget"]);
        assert!(!file.exists(), "no other one is made");
    }
    std::fs::write(&file, format!("{}\n", "0f".repeat(32))).unwrap();
    let private: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
    for arguments in [LOGIN, KEY, &["balance"], &["status"]] {
        desk.refused(arguments, &["sealed with another master key"]);
    }
    std::fs::rename(&away, &file).unwrap();
    desk.done(&["balance"]);
    // What is lost can be begun anew.
    std::fs::remove_file(&file).unwrap();
    desk.done(&["forget"]);
    assert!(desk.done(&["status"]).contains("login    none"));
    desk.done(LOGIN);
    desk.done(KEY);
}

#[test]
fn an_account_is_worked_on_beside_a_gateway() {
    let desk = Desk::new(TOKEN, "");
    let Desk { market: little, folder } = desk;
    let gateway = Gateway::start_in(folder, &Options::with(&[("SLUICE_LOG", EVERYTHING)]));
    for arguments in [REGISTER, LOGIN, KEY, &["deposit", "1"], &["balance"], &["status"]] {
        let run = market(gateway.folder(), arguments);
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    assert_eq!(little.requests().len(), 7, "status asks twice");
    let log = gateway.stop();
    assert!(log.contains("listening"), "the control");
    assert_clean("the gateway's log", log.as_bytes());
}
