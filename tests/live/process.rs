//! Running the binary and asking it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::city::Run;

/// Time in which a run must end after it was asked to.
const STOP: Duration = Duration::from_secs(15);

pub(crate) fn viaflux() -> Command {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_viaflux"));
    let mut command = Command::new(std::env::var_os("VIAFLUX_BIN").map_or(built, PathBuf::from));
    // What the developer has set must not reach the configurations of these tests.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("VIAFLUX_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end; it must succeed. Returns its stdout.
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `done` gives something; `what` is said if it does not in time.
pub(crate) fn until<T>(what: &str, deadline: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process whose stderr goes to a file and stdout to another; killed if the test ends before it.
pub(crate) struct Child {
    child: std::process::Child,
    log: PathBuf,
}

impl Child {
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(log.with_extension("out")).unwrap())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                begun.elapsed() < deadline,
                "still running after {deadline:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn succeed(mut self) {
        let status = self.wait(Duration::from_secs(120));
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `viaflux run` that is up.
pub(crate) struct Live {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Live {
    /// Starts it and waits until its doors are open.
    pub(crate) fn start(run: &Run, arguments: &[&str]) -> Self {
        let mut command = viaflux();
        command
            .arg("run")
            .arg("-c")
            .arg(&run.config)
            .args(["--log-format", "json"])
            .args(arguments);
        let mut child = Child::spawn(
            &mut command,
            &run.config.with_extension(crate::broker::fresh("log")),
        );
        let (public, admin) = until("listening", Duration::from_secs(30), || {
            assert!(child.ended().is_none(), "ended at once:\n{}", child.log());
            let log = child.log();
            let line = log.lines().find(|line| line.contains("\"listening\""))?;
            let line: Value = serde_json::from_str(line).ok()?;
            let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
            Some((address("public"), address("admin")))
        });
        Self { child, public, admin }
    }

    /// Starts it with checkpoints every second.
    pub(crate) fn start_with_state(run: &Run) -> Self {
        Self::start(
            run,
            &["--state", run.state.to_str().unwrap(), "--checkpoint-every", "1"],
        )
    }

    pub(crate) fn log(&self) -> String {
        self.child.log()
    }

    /// Panics with the log if it has ended.
    pub(crate) fn running(&mut self) {
        if let Some(status) = self.child.ended() {
            panic!("ended by itself, {status}:\n{}", self.log());
        }
    }

    /// `/readyz`, `/livez`: status code and words.
    pub(crate) fn probe(&self, path: &str) -> (u16, String) {
        get(self.admin, path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// A document of the API.
    pub(crate) fn api(&self, path: &str) -> Value {
        let (status, text) =
            get(self.public, path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn read(&self) -> u64 {
        self.api("/api/v1/status")["records"]["read"]
            .as_u64()
            .unwrap_or(0)
    }

    /// Waits until so many records were read.
    pub(crate) fn has_read(&mut self, records: u64, deadline: Duration) {
        let begun = Instant::now();
        loop {
            self.running();
            let read = self.read();
            assert!(read <= records, "{read} records read, there are only {records}");
            if read == records {
                return;
            }
            assert!(
                begun.elapsed() < deadline,
                "{read} of {records} records read in {deadline:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until `/readyz` says 503 with these words in it.
    pub(crate) fn not_ready(&mut self, words: &str) {
        until(words, Duration::from_secs(30), || {
            self.running();
            let (status, text) = self.probe("/readyz");
            (status == 503 && text.contains(words)).then_some(())
        });
    }

    /// Waits until `/readyz` says no more that partitions are missing.
    pub(crate) fn owns_all(&mut self) {
        until("all partitions", Duration::from_secs(30), || {
            self.running();
            let (_, text) = self.probe("/readyz?verbose");
            text.contains("[+]assignment ok").then_some(())
        });
    }

    /// Ends it without warning.
    pub(crate) fn kill(mut self) {
        self.running();
        self.child.kill();
    }

    /// Asks it to stop; it must do so in time and well. Returns its summary.
    pub(crate) fn terminate(mut self) -> Value {
        self.running();
        finish(Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.child.id())]));
        let status = self.child.wait(STOP);
        assert!(status.success(), "{status}:\n{}", self.log());
        let text = std::fs::read_to_string(self.child.log.with_extension("out")).unwrap();
        let summary: Value = serde_json::from_str(&text).unwrap();
        balanced(&summary);
        summary
    }
}

/// Every record read is used or refused.
pub(crate) fn balanced(summary: &Value) {
    let records = &summary["records"];
    let rejected: u64 = records["rejected"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    let (read, used) = (
        records["read"].as_u64().unwrap(),
        records["used"].as_u64().unwrap(),
    );
    assert_eq!(used + rejected, read, "{records}");
}

/// One request over a connection of its own.
fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let bad = || std::io::Error::other(format!("no HTTP answer: {text}"));
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(bad)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}
