//! Load generators as processes of their own: one in each namespace, so that their processor time
//! and memory are not ours and not each other's.
//!
//! The process is this program again (`hybridwg bench worker`). Requests go to its standard input
//! and replies come from its standard output, one JSON object a line. It does any number of tasks
//! at once and ends when its input does.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::load::{Outcome, Task};
use crate::control::interrupt::Interrupt;
use crate::sys::clock;
use crate::sys::netns::NetNamespace;

/// The words by which the program becomes a worker.
pub const ARGUMENTS: [&str; 2] = ["bench", "worker"];

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u64,
    task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    id: u64,
    news: News,
}

#[derive(Debug, Serialize, Deserialize)]
enum News {
    /// The port at which the task waits for its partner.
    Ready(u16),
    Done(Outcome),
    Failed(String),
}

/// Does what is asked on `input` until it ends, and answers on `output`.
///
/// # Errors
/// A line that is no request, or an output that nobody reads.
pub fn serve(input: impl BufRead, output: impl Write + Send) -> io::Result<()> {
    let output = Mutex::new(output);
    let say = |id, news| {
        let mut line = serde_json::to_vec(&Reply { id, news })?;
        line.push(b'\n');
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(&line).and_then(|()| output.flush())
    };
    thread::scope(|scope| {
        for line in input.lines() {
            let Request { id, task } = serde_json::from_str(&line?)?;
            let say = &say;
            scope.spawn(move || {
                let outcome = task.run(&mut |port| drop(say(id, News::Ready(port))));
                let news = outcome.map_or_else(|error| News::Failed(error.to_string()), News::Done);
                // Whoever asked has gone, and the input ends as well.
                drop(say(id, news));
            });
        }
        Ok(())
    })
}

/// A worker in a namespace. It is ended when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    requests: ChildStdin,
    waiting: Arc<Mutex<Waiting>>,
    next: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    by_id: HashMap<u64, Sender<News>>,
    /// The worker said its last word.
    is_over: bool,
}

impl Worker {
    /// Starts this program again inside `namespace`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(namespace: &NetNamespace) -> Result<Self, BenchError> {
        let what = || "cannot start a load generator";
        let executable = std::env::current_exe().map_err(BenchError::io(what()))?;
        let mut command = Command::new(executable);
        command.args(ARGUMENTS).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = namespace.run(|| command.spawn())?.map_err(BenchError::io(what()))?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Silent("a load generator without pipes".to_owned()));
        };
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let listening = Arc::clone(&waiting);
        thread::Builder::new()
            .name("replies".to_owned())
            .spawn(move || distribute(BufReader::new(replies), &listening))
            .map_err(BenchError::io(what()))?;
        Ok(Self { child, requests, waiting, next: 0 })
    }

    /// Asks for a task.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn ask(&mut self, name: &'static str, task: Task) -> Result<Running, BenchError> {
        let gone = || BenchError::Load { task: name, reason: "the generator has ended".to_owned() };
        let (sender, news) = mpsc::channel();
        self.next += 1;
        let id = self.next;
        {
            let mut waiting = lock(&self.waiting);
            if waiting.is_over {
                return Err(gone());
            }
            waiting.by_id.insert(id, sender);
        }
        let mut line = serde_json::to_vec(&Request { id, task })
            .map_err(|error| BenchError::Load { task: name, reason: error.to_string() })?;
        line.push(b'\n');
        self.requests.write_all(&line).map_err(|_| gone())?;
        Ok(Running { name, news })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself, and is waited for here alone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Gives each reply to whoever waits for it.
fn distribute(replies: impl BufRead, waiting: &Mutex<Waiting>) {
    for line in replies.lines() {
        let Ok(Reply { id, news }) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else {
            break;
        };
        let is_last = !matches!(news, News::Ready(_));
        let mut waiting = lock(waiting);
        if let Some(waiter) = waiting.by_id.get(&id) {
            // He may not wait any more.
            drop(waiter.send(news));
        }
        if is_last {
            waiting.by_id.remove(&id);
        }
    }
    // Those who still wait see that nothing can come.
    let mut waiting = lock(waiting);
    waiting.is_over = true;
    waiting.by_id.clear();
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that was asked for.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    news: Receiver<News>,
}

impl Running {
    /// The port at which the task waits for its partner.
    ///
    /// # Errors
    /// The task failed first, or does not say it; somebody interrupted.
    pub fn port(&self, interrupt: &Interrupt) -> Result<u16, BenchError> {
        match self.next(READY_LIMIT, interrupt)? {
            News::Ready(port) => Ok(port),
            News::Done(outcome) => Err(BenchError::mismatch(self.name, &outcome)),
            News::Failed(reason) => Err(BenchError::Load { task: self.name, reason }),
        }
    }

    /// What came of it, within `limit`.
    ///
    /// # Errors
    /// The task failed, or takes longer; somebody interrupted.
    pub fn outcome(self, limit: Duration, interrupt: &Interrupt) -> Result<Outcome, BenchError> {
        loop {
            match self.next(limit, interrupt)? {
                News::Ready(_) => {}
                News::Done(outcome) => return Ok(outcome),
                News::Failed(reason) => {
                    return Err(BenchError::Load { task: self.name, reason });
                }
            }
        }
    }

    fn next(&self, limit: Duration, interrupt: &Interrupt) -> Result<News, BenchError> {
        let failed = |reason: &str| BenchError::Load { task: self.name, reason: reason.to_owned() };
        let deadline = clock::now().mono + limit;
        loop {
            match self.news.recv_timeout(LOOK_EVERY) {
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed("the generator has ended"));
                }
                Err(RecvTimeoutError::Timeout) if interrupt.is_raised() => {
                    return Err(BenchError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if clock::now().mono > deadline => {
                    return Err(failed("the generator does not answer"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

const READY_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::bench::load::{echo, udp};

    #[test]
    fn each_request_is_answered_under_its_number_and_a_failure_says_why() {
        // Nobody can be reached at port 0.
        let to = (Ipv4Addr::LOCALHOST, 0).into();
        let asked = echo::Ask {
            to,
            transport: echo::Transport::Tcp,
            connections: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(1),
            interval: None,
            round_trip: Duration::ZERO,
        };
        let sent = udp::Send {
            to: (Ipv4Addr::LOCALHOST, 9).into(),
            payload_bytes: 8,
            packets_per_second: 100.0,
            duration: Duration::from_millis(20),
        };
        let tasks = [(7, Task::EchoAsk(asked)), (8, Task::UdpSend(sent))];
        let lines: Vec<String> = tasks
            .into_iter()
            .map(|(id, task)| serde_json::to_string(&Request { id, task }).unwrap() + "\n")
            .collect();
        let mut output = Vec::new();
        serve(lines.concat().as_bytes(), &mut output).unwrap();
        let mut replies: Vec<Reply> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        replies.sort_by_key(|reply| reply.id);
        assert!(matches!(&replies[0], Reply { id: 7, news: News::Failed(_) }), "{replies:?}");
        let done = &replies[1].news;
        assert!(matches!(done, News::Done(Outcome::UdpSent(_))), "{replies:?}");
    }

    #[test]
    fn a_port_is_told_before_the_outcome() {
        let serve_one = echo::Serve {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: echo::Transport::Tcp,
            connections: 0,
        };
        let request = Request { id: 1, task: Task::EchoServe(serve_one) };
        let mut output = Vec::new();
        serve((serde_json::to_string(&request).unwrap() + "\n").as_bytes(), &mut output).unwrap();
        let waiting = Mutex::new(Waiting::default());
        let (sender, news) = mpsc::channel();
        waiting.lock().unwrap().by_id.insert(1, sender);
        distribute(&output[..], &waiting);
        let running = Running { name: "echo", news };
        assert_ne!(running.port(&Interrupt::never()).unwrap(), 0);
        let outcome = running.outcome(Duration::from_secs(1), &Interrupt::never()).unwrap();
        assert_eq!(outcome, Outcome::EchoServed);
    }

    #[test]
    fn whoever_waits_for_a_worker_that_ended_is_told() {
        let waiting = Mutex::new(Waiting::default());
        let (sender, news) = mpsc::channel();
        waiting.lock().unwrap().by_id.insert(1, sender);
        distribute(&b""[..], &waiting);
        let error = Running { name: "echo", news }.port(&Interrupt::never()).unwrap_err();
        assert_eq!(error.to_string(), "echo: the generator has ended");
    }

    #[test]
    fn a_line_that_is_no_request_ends_the_worker() {
        assert!(serve(&b"nonsense\n"[..], Vec::new()).is_err());
    }
}
