//! Disks and databases that take nothing for a while, by the vendor's own books: nothing new is spent,
//! nothing that was promised is lost, and it ends by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_simulate::Billed;
use sluice_tests::gateway::{Gateway, Options, PATIENCE, metric};
use sluice_tests::stage::{KEY, Vendor};
use sluice_tests::{Answer, Stage};
use tempfile::TempDir;

/// Nano-dollars for a token: what a million cost in the configuration.
const PRICE: u64 = 1000;

const MODELS: &str = "[[models]]\nname = \"m\"\nretries = 0\n\
    targets = [{ upstream = \"a\", price = { input = \"1\", output = \"1\" }, max_output = 1000 }]\n\
    [[models]]\nname = \"free\"\ntargets = [{ upstream = \"echo\", model = \"echo\" }]\n\
    [upstreams.echo]\nadapter = \"echo\"\n\
    [[budgets]]\nname = \"per-run\"\nper = \"run\"\ncap_usd = \"1.00\"\nwindow = \"day\"\n";

fn body(stream: bool) -> Value {
    json!({"model": "m", "stream": stream, "max_tokens": 40, "messages": [{"role": "user", "content": "Say it."}]})
}

async fn start(data: &Path) -> Stage {
    let server = format!("data_dir = \"{}\"", data.display());
    let stage = Stage::start(&server, &[Vendor::openai("a", "")], MODELS).await;
    stage.direct("a", json!({"reply": "word ".repeat(30)}));
    stage
}

async fn ask(stage: &Stage, run: &str, stream: bool) -> Answer {
    let request = stage.gateway.chat_request(body(stream).to_string()).header("x-sluice-run", run);
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

/// What a run finds whose account has nothing leased: money that cannot be written down is not spent.
async fn is_refused(stage: &Stage, run: &str, reason: &str) {
    let seen = stage.seen("a");
    let answer = ask(stage, run, false).await;
    let message = answer.refused(503, "ledger_unavailable");
    assert!(message.contains(&format!("({reason})")), "{message}");
    assert_eq!(answer.header("retry-after"), "1", "{answer:?}");
    assert_eq!(stage.seen("a"), seen, "nobody is asked");
    assert_eq!(stage.metric("sluice_ledger_trouble").await, 1.0);
}

/// What goes on meanwhile: who costs nothing is served, so the gateway is ready.
async fn serves_what_is_free(stage: &Stage) {
    assert_eq!(stage.gateway.get("/ready").await.status, 200);
    assert_eq!(stage.gateway.get("/health").await.status, 200);
    assert_eq!(stage.gateway.ask("free").await.status, 200);
}

/// Nobody does anything for it: sooner or later money is spent again, and the store has all of it.
async fn recovers(stage: &Stage, run: &str) {
    let recovered = async {
        while ask(stage, run, false).await.status != 200 {
            tokio::task::yield_now().await;
        }
        let figures = ["ledger_trouble", "ledger_waiting", "spending_holds"];
        for figure in figures {
            while stage.metric(&format!("sluice_{figure}")).await > 0.0 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("it recovers by itself");
}

/// Ends the gateway: what was billed is charged, each call has its row, and nothing is in doubt.
fn adds_up(stage: Stage, data: &Path) {
    let rows = stage.simulator.books().rows;
    let cost = |billed: Billed| (billed.prompt_tokens + billed.completion_tokens) * PRICE;
    let billed: u64 = rows.iter().map(|row| cost(row.billed)).sum();
    drop(stage.gateway.ended_in_order());
    let store = Connection::open(data.join("sluice.db")).unwrap();
    let sum = |query| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    assert!(billed > 0);
    assert_eq!(sum("SELECT sum(settled) FROM accounts"), billed);
    assert_eq!(sum("SELECT sum(in_doubt) FROM accounts"), 0);
    assert_eq!(sum("SELECT coalesce(sum(leased), 0) FROM leases"), 0);
    assert_eq!(sum("SELECT sum(cost) FROM calls WHERE upstream = 'a'"), billed);
    assert_eq!(sum("SELECT count(*) FROM calls WHERE upstream = 'a'"), rows.len() as u64);
}

/// Two calls of these runs that are under way until [`end`].
async fn under_way(stage: &Stage, run: &str) -> tokio::task::JoinSet<Answer> {
    stage.direct("a", json!({"faults": [{"kind": "wait", "times": 0}]}));
    let seen = stage.simulator.books().rows.len();
    let mut asking = tokio::task::JoinSet::new();
    for stream in [false, true] {
        let request = stage.gateway.chat_request(body(stream).to_string()).header("x-sluice-run", run);
        asking.spawn(async move { Answer::read(request.send().await.unwrap()).await.unwrap() });
    }
    stage.arrived(seen + 2).await;
    asking
}

async fn end(stage: &Stage, asking: tokio::task::JoinSet<Answer>) {
    stage.direct("a", json!({"reply": "word ".repeat(30)}));
    for answer in asking.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Another process has the database for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_locked_refuses_what_is_new_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let stage = start(folder.path()).await;
    assert_eq!(ask(&stage, "old", true).await.status, 200);
    let asking = under_way(&stage, "old").await;
    let other = Connection::open(folder.path().join("sluice.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    end(&stage, asking).await;
    // What is leased is promised. (A lease that rested for long may be on its way back, which fails.)
    let promised = async { while ask(&stage, "old", false).await.status != 200 {} };
    tokio::time::timeout(PATIENCE, promised).await.expect("what is leased is spent");
    is_refused(&stage, "new", "locked").await;
    serves_what_is_free(&stage).await;
    is_refused(&stage, "newer", "locked").await;
    assert!(stage.gateway.log().contains("the ledger cannot be written; nothing of it is lost"));
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    recovers(&stage, "new").await;
    adds_up(stage, folder.path());
}

/// A small disk of its own, where the machine gives one: that is to root.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Disk {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).status();
        // A law that is passed over is not shown.
        assert!(
            mount.is_ok_and(|status| status.success()),
            "only root may mount a small disk: run this as root"
        );
        Disk(at.into())
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[7; 4096]).is_ok() {}
        while filler.write_all(&[7]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a gateway that a failed test has left still writes to it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disk is full, as it is when somebody else's log has taken it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_refuses_what_is_new_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::mount(folder.path());
    let stage = start(folder.path()).await;
    assert_eq!(ask(&stage, "old", true).await.status, 200);
    let asking = under_way(&stage, "old").await;
    disk.fill();
    // What was held before is paid, though nobody can write it down.
    end(&stage, asking).await;
    is_refused(&stage, "new", "full").await;
    serves_what_is_free(&stage).await;
    is_refused(&stage, "newer", "full").await;
    assert!(stage.metric("sluice_ledger_waiting").await >= 2.0, "what has ended waits");
    disk.clear();
    recovers(&stage, "new").await;
    adds_up(stage, folder.path());
    drop(disk);
}

/// A disk in a file, which turns read-only as the kernel has it of one that has errors.
struct Failing {
    image: TempDir,
    at: PathBuf,
}

impl Failing {
    fn new(at: &Path) -> Failing {
        let failing = Failing { image: TempDir::new().unwrap(), at: at.into() };
        File::create(failing.file()).unwrap().set_len(16 << 20).unwrap();
        // Without a journal of its own: what fails does not change what it has.
        run(Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(failing.file()));
        failing.mount();
        failing
    }

    fn file(&self) -> PathBuf {
        self.image.path().join("disk")
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(self.file()).arg(&self.at));
    }

    /// What was written before is on it; nothing more gets there.
    fn fail(&self) {
        run(Command::new("sync").arg("--file-system").arg(&self.at));
        let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at).output().unwrap().stdout;
        let device = String::from_utf8(device).unwrap();
        let name = device.trim().strip_prefix("/dev/").expect("a loop device");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    }

    /// As an operator does it, when nobody uses it.
    fn mend(&self) {
        run(Command::new("umount").arg(&self.at));
        // It says with 1 that there was something to mend.
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(self.file()).output().unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        self.mount();
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}, which wants root: {output:?}");
}

/// The disk turns read-only under it. That does not pass by itself; mended, it has all that was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turns_read_only_refuses_what_is_new_and_refunds_nothing() {
    let folder = TempDir::new().unwrap();
    let disk = Failing::new(folder.path());
    let stage = start(folder.path()).await;
    assert_eq!(ask(&stage, "old", true).await.status, 200);
    let asking = under_way(&stage, "old").await;
    disk.fail();
    end(&stage, asking).await;
    // All that SQLite says of it is that a write fails.
    is_refused(&stage, "new", "broken").await;
    serves_what_is_free(&stage).await;
    is_refused(&stage, "newer", "broken").await;
    // What has ended could not be written down: whoever starts next finds it under way.
    let Stage { gateway, simulator } = stage;
    let own = gateway.crash();
    disk.mend();
    let gateway = Gateway::start_in(own, &Options::with(&[("KEY", KEY)]));
    assert!(gateway.log().contains("what was held for them is in doubt"), "{}", gateway.log());
    let page = gateway.get("/metrics").await.text();
    assert!(metric(&page, "sluice_spending_in_doubt_nanodollars") > 0.0, "from the start");
    let request = gateway.chat_request(body(false).to_string()).header("x-sluice-run", "new");
    assert_eq!(Answer::read(request.send().await.unwrap()).await.unwrap().status, 200, "it goes on");
    drop(gateway.ended_in_order());
    let rows = simulator.books().rows;
    let billed: u64 =
        rows.iter().map(|row| (row.billed.prompt_tokens + row.billed.completion_tokens) * PRICE).sum();
    let store = Connection::open(folder.path().join("sluice.db")).unwrap();
    let sum = |query| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    let (settled, in_doubt) =
        (sum("SELECT sum(settled) FROM accounts"), sum("SELECT sum(in_doubt) FROM accounts"));
    assert!(in_doubt > 0 && billed <= settled + in_doubt, "{billed} billed, {settled}, {in_doubt} in doubt");
    assert_eq!(sum("SELECT count(*) FROM in_doubt"), 2, "what was under way, and no more");
    drop(disk);
}
