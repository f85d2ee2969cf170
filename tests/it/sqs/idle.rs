//! Idle long polls, of which a fleet of consumers keeps thousands: what they cost.
//!
//! `NIGHTMAIL_SQS_POLLS=10000` runs it in full size.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{bound, json};
use crate::harness::{Harness, say, size};

/// The daemon with 10,000 polls is to have less than 200 MB, of which it needs 30 MB without any.
const BYTES_EACH_MAX: u64 = 17_000;
/// For so long processor time is counted.
const WATCH: Duration = Duration::from_secs(2);

/// The memory of a process in bytes, and its processor time in ticks of 10 ms.
fn cost(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (kib * 1024, ticks(11) + ticks(12))
}

/// A consumer as it is after its first requests: a kept connection, over which it waits.
async fn consumer(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asked = json("GetQueueUrl", r#"{"QueueName":"idle"}"#);
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
    let poll = json("ReceiveMessage", r#"{"QueueUrl":"/000000000000/idle","WaitTimeSeconds":20}"#);
    stream.write_all(poll.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_long_polls_take_little_memory_and_no_processor_time() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let polls = size("NIGHTMAIL_SQS_POLLS", 1000);
    let mut harness = Harness::with_users(0).await;
    harness.set_key("API__SQS__LISTEN", "127.0.0.1:0");
    harness.set_key("API__SQS__AUTH", "none");
    let child = harness.child().await;
    let address = bound(&child.operator).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(json("CreateQueue", r#"{"QueueName":"idle"}"#).as_bytes()).await.unwrap();
    first.read_exact(&mut [0; 15]).await.unwrap();
    let (before, _) = cost(child.pid());
    let mut waiting = Vec::new();
    for _ in 0..polls {
        waiting.push(consumer(address).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, busy) = cost(child.pid());
    tokio::time::sleep(WATCH).await;
    let (resident, ticks) = cost(child.pid());
    let (each, ticks) = ((resident - before) / u64::from(polls), ticks - busy);
    say(format_args!("{polls} idle polls: {each} bytes each, {} MB in all, {ticks} ticks", resident / 1_000_000));
    assert!(each <= BYTES_EACH_MAX, "{each} bytes for each poll");
    assert!(ticks <= 20, "{ticks} ticks of 10 ms in {WATCH:?}");
    // All of them really waited: each gets its empty answer at the end.
    child.terminate(Duration::from_secs(30)).await;
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    }
}
