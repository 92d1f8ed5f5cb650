//! Open-loop load: requests are sent when they are due, whether or not earlier ones were answered,
//! and their time counts from when they were due. One line of JSON.
//!
//! sluice-openloop ADDRESS BODY RATE SECONDS

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Each serves every so many-th request; one that is late delays only its own.
const CONNECTIONS: u32 = 32;

/// Until the threads stand.
const LEAD: Duration = Duration::from_millis(50);

struct Connection {
    reader: BufReader<TcpStream>,
    request: Arc<[u8]>,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, body, rate, seconds] = arguments.as_slice() else {
        return Err("sluice-openloop ADDRESS BODY RATE SECONDS".into());
    };
    let (rate, seconds): (u32, u32) = (rate.parse()?, seconds.parse()?);
    let request: Arc<[u8]> = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
    .into();
    let interval = Duration::from_secs(1) / rate;
    let start = Instant::now() + LEAD;
    let run = |first: u32| {
        let (address, request) = (address.clone(), Arc::clone(&request));
        thread::spawn(move || -> std::io::Result<Vec<Duration>> {
            let mut connection = Connection::open(&address, request)?;
            let mut times = Vec::new();
            for number in (first..rate * seconds).step_by(CONNECTIONS as usize) {
                let due = start + interval * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                connection.ask()?;
                times.push(due.elapsed());
            }
            Ok(times)
        })
    };
    let threads: Vec<_> = (0..CONNECTIONS).map(run).collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| "a connection's thread broke down")??);
    }
    let seconds_taken = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    let figures = format!(
        r#"{{"requests":{},"seconds":{:.3},"p50_us":{},"p90_us":{},"p99_us":{},"max_us":{}}}"#,
        times.len(),
        seconds_taken,
        at(50),
        at(90),
        at(99),
        at(100)
    );
    writeln!(std::io::stdout(), "{figures}")?;
    Ok(())
}

impl Connection {
    fn open(address: &str, request: Arc<[u8]>) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Connection { reader: BufReader::new(stream), request })
    }

    /// One request and its whole answer, which must be a 200 of known length.
    fn ask(&mut self) -> std::io::Result<()> {
        self.reader.get_mut().write_all(&self.request)?;
        let (mut line, mut length) = (String::new(), None);
        self.reader.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(std::io::Error::other(line));
        }
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
            if line == "\r\n" {
                break;
            }
        }
        let length: u64 = length.ok_or_else(|| std::io::Error::other("an answer of unknown length"))?;
        let read = std::io::copy(&mut Read::by_ref(&mut self.reader).take(length), &mut std::io::sink())?;
        if read == length { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}
