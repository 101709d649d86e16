//! Whether the process is alive, has started, and may be sent traffic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Serialize;

/// One check, as `?verbose` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the check.
    pub name: String,
    /// Why it does not pass, `None` if it does.
    pub reason: Option<String>,
}

/// What the probes `/livez`, `/readyz` and `/startupz` answer. The service writes it, any thread may.
///
/// A new one is alive, not started, and not ready because it is `starting`.
#[derive(Debug)]
pub struct Health {
    since: Instant,
    started: AtomicBool,
    stopping: AtomicBool,
    // Milliseconds since `since` of the last heartbeat; 0 is none yet.
    beat: AtomicU64,
    beat_max: Duration,
    checks: RwLock<BTreeMap<String, Option<String>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(Duration::from_secs(120))
    }
}

impl Health {
    /// `beat_max`: how long the engine may be silent after its first [`Health::beat`] before the process
    /// counts as dead.
    pub fn new(beat_max: Duration) -> Self {
        Self {
            since: Instant::now(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            beat_max,
            checks: RwLock::default(),
        }
    }

    /// Map, state and sources are loaded.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// The process shuts down: not ready any more, alive until it is gone.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The engine's loop went round once.
    pub fn beat(&self) {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(ms.max(1), Ordering::Release);
    }

    /// A named condition of readiness passes.
    pub fn pass(&self, check: &str) {
        self.set(check, None);
    }

    /// A named condition of readiness does not pass, such as `assignment` with `partial assignment`, or
    /// `data` with `no data`.
    pub fn fail(&self, check: &str, reason: &str) {
        self.set(check, Some(reason.to_owned()));
    }

    fn set(&self, check: &str, reason: Option<String>) {
        self.checks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(check.to_owned(), reason);
    }

    /// The checks of `/livez`.
    pub fn liveness(&self) -> Vec<Check> {
        let beat = self.beat.load(Ordering::Acquire);
        let silent = self.since.elapsed().saturating_sub(Duration::from_millis(beat));
        let reason = (beat > 0 && silent > self.beat_max).then(|| {
            format!(
                "engine silent for {} s, allowed {} s",
                silent.as_secs(),
                self.beat_max.as_secs()
            )
        });
        vec![Check {
            name: "engine".to_owned(),
            reason,
        }]
    }

    /// The checks of `/startupz`.
    pub fn startup(&self) -> Vec<Check> {
        let reason = (!self.started.load(Ordering::Acquire)).then(|| "starting".to_owned());
        vec![Check {
            name: "startup".to_owned(),
            reason,
        }]
    }

    /// The checks of `/readyz`, in order of their names behind the first.
    pub fn readiness(&self) -> Vec<Check> {
        let mut checks = self.startup();
        if self.stopping.load(Ordering::Acquire) {
            checks[0].reason = Some("shutting down".to_owned());
        }
        let named = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        checks.extend(named.iter().map(|(name, reason)| Check {
            name: name.clone(),
            reason: reason.clone(),
        }));
        checks
    }

    /// Reasons why the process is not ready; empty if it is.
    pub fn not_ready(&self) -> Vec<String> {
        self.readiness().into_iter().filter_map(|c| c.reason).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn becomes_ready_only_when_all_pass() {
        let health = Health::default();
        assert_eq!(health.not_ready(), ["starting"]);
        health.fail("assignment", "partial assignment");
        health.started();
        assert_eq!(health.not_ready(), ["partial assignment"]);
        health.pass("assignment");
        assert!(health.not_ready().is_empty());
        health.stopping();
        assert_eq!(health.not_ready(), ["shutting down"]);
    }

    #[test]
    fn a_silent_engine_is_dead_but_one_that_never_ran_is_not() {
        let health = Health::new(Duration::ZERO);
        assert_eq!(health.liveness()[0].reason, None);
        health.beat();
        std::thread::sleep(Duration::from_millis(5));
        assert!(
            health.liveness()[0]
                .reason
                .as_deref()
                .is_some_and(|r| r.contains("silent"))
        );
    }
}
