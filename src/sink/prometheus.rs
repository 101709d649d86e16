//! Families of series over the `prometheus` crate with one hard cap on how many series there are.
//!
//! A scrape that grows without bound hurts whoever stores it more than it hurts us, so a label value that
//! nobody expected (a mistyped region, thousands of topics) costs one counter instead of a series each.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, TextEncoder,
};

/// Content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Grows only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size; the upper bounds of its buckets, `+Inf` not named.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word used in `# TYPE` lines.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }

    /// Lines that one label combination costs: a histogram has one per bucket, `+Inf`, sum and count.
    const fn series(self) -> usize {
        match self {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram(buckets) => buckets.len() + 3,
        }
    }
}

/// How many series there may be, and what did not fit.
#[derive(Debug)]
pub struct Cap {
    max: usize,
    used: AtomicUsize,
    dropped: IntCounter,
    // Hashes of refused label combinations, so that each is counted once however often it is tried.
    refused: Mutex<HashSet<u64>>,
}

impl Cap {
    /// A cap of `max` series; `dropped` counts the label combinations that did not fit.
    pub fn new(max: usize, dropped: IntCounter) -> Self {
        Self {
            max,
            used: AtomicUsize::new(0),
            dropped,
            refused: Mutex::default(),
        }
    }

    /// Series in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, n: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(n).filter(|sum| *sum <= self.max)
            })
            .is_ok()
    }

    fn refuse(&self, family: &str, labels: &[&str]) {
        let mut hasher = DefaultHasher::new();
        (family, labels).hash(&mut hasher);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // The memory of refusals is bounded by the same number as the series themselves.
        if refused.len() < self.max && refused.insert(hasher.finish()) {
            self.dropped.inc();
        }
    }
}

#[derive(Clone, Debug)]
enum Series {
    Counter(IntCounter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug)]
enum Vector {
    Counter(IntCounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

/// All series of one metric.
#[derive(Debug)]
pub struct Family {
    name: String,
    kind: Kind,
    vector: Vector,
    // The vector of the crate cannot be asked whether a series exists, which the cap needs to know.
    series: RwLock<BTreeMap<Vec<String>, Series>>,
    cap: Arc<Cap>,
}

impl Family {
    /// Creates and registers a family.
    ///
    /// # Errors
    /// If the name or a label is no valid one or is registered already.
    pub fn register(
        registry: &Registry,
        cap: &Arc<Cap>,
        name: &str,
        kind: Kind,
        labels: &[&str],
        help: &str,
    ) -> Result<Self, ::prometheus::Error> {
        let vector = match kind {
            Kind::Counter => {
                let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(vector.clone()))?;
                Vector::Counter(vector)
            }
            Kind::Gauge => {
                let vector = GaugeVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(vector.clone()))?;
                Vector::Gauge(vector)
            }
            Kind::Histogram(buckets) => {
                let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
                let vector = HistogramVec::new(options, labels)?;
                registry.register(Box::new(vector.clone()))?;
                Vector::Histogram(vector)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            vector,
            series: RwLock::default(),
            cap: Arc::clone(cap),
        })
    }

    /// The series of these label values, made if there is room; `None` beyond the cap.
    fn series(&self, labels: &[&str]) -> Option<Series> {
        let key: Vec<String> = labels.iter().map(|&l| l.to_owned()).collect();
        if let Some(series) = self
            .series
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Some(series.clone());
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(&key) {
            return Some(series.clone());
        }
        if !self.cap.reserve(self.kind.series()) {
            drop(all);
            self.cap.refuse(&self.name, labels);
            return None;
        }
        let made = match &self.vector {
            Vector::Counter(v) => v.get_metric_with_label_values(labels).map(Series::Counter),
            Vector::Gauge(v) => v.get_metric_with_label_values(labels).map(Series::Gauge),
            Vector::Histogram(v) => v.get_metric_with_label_values(labels).map(Series::Histogram),
        };
        // Fails only on a wrong number of labels, which is a fault of the caller in this crate.
        let series = made.expect("as many values as the family has labels");
        all.insert(key, series.clone());
        Some(series)
    }

    /// Adds to a counter (or moves a gauge up).
    pub fn add(&self, labels: &[&str], n: u64) {
        match self.series(labels) {
            Some(Series::Counter(c)) => c.inc_by(n),
            Some(Series::Gauge(g)) => g.add(n as f64),
            Some(Series::Histogram(_)) => debug_assert!(false, "{} is a histogram: observe", self.name),
            None => {}
        }
    }

    /// Moves a gauge by a signed amount.
    pub fn shift(&self, labels: &[&str], by: f64) {
        match self.series(labels) {
            Some(Series::Gauge(g)) => g.add(by),
            Some(_) => debug_assert!(false, "{} is no gauge", self.name),
            None => {}
        }
    }

    /// Sets a gauge.
    pub fn set(&self, labels: &[&str], value: f64) {
        match self.series(labels) {
            Some(Series::Gauge(g)) => g.set(value),
            Some(_) => debug_assert!(false, "{} is no gauge", self.name),
            None => {}
        }
    }

    /// Observes a value in a histogram; what is not finite is left out.
    pub fn observe(&self, labels: &[&str], value: f64) {
        self.observe_all(labels, [value]);
    }

    /// Observes many values of one series, which is looked up once.
    pub fn observe_all(&self, labels: &[&str], values: impl IntoIterator<Item = f64>) {
        match self.series(labels) {
            Some(Series::Histogram(h)) => {
                let finite = values.into_iter().filter(|v| v.is_finite());
                finite.for_each(|value| h.observe(value));
            }
            Some(_) => debug_assert!(false, "{} is no histogram", self.name),
            None => {}
        }
    }

    /// Sets every gauge of the family whose labels are not in `kept` to 0.
    pub fn zero_all_but(&self, kept: &[Vec<&str>]) {
        for (labels, series) in self.series.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Series::Gauge(g) = series
                && !kept.iter().any(|k| k == labels)
            {
                g.set(0.0);
            }
        }
    }

    /// Removes a series, so that what is gone (a partition given to somebody else) is not told on for ever.
    pub fn forget(&self, labels: &[&str]) {
        let key: Vec<String> = labels.iter().map(|&l| l.to_owned()).collect();
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.remove(&key).is_none() {
            return;
        }
        let removed = match &self.vector {
            Vector::Counter(v) => v.remove_label_values(labels),
            Vector::Gauge(v) => v.remove_label_values(labels),
            Vector::Histogram(v) => v.remove_label_values(labels),
        };
        debug_assert!(removed.is_ok(), "{} knew the series", self.name);
        self.cap.used.fetch_sub(self.kind.series(), Ordering::Relaxed);
    }
}

/// All registered families as text 0.0.4.
///
/// # Errors
/// If a family cannot be written, which the crate says of families without series only; the registry
/// leaves those out.
pub fn text(registry: &Registry) -> Result<Vec<u8>, ::prometheus::Error> {
    let mut out = Vec::with_capacity(16 * 1024);
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(max: usize, kind: Kind) -> (Registry, Arc<Cap>, Family) {
        let registry = Registry::new();
        let dropped = IntCounter::new("dropped_total", "Dropped").unwrap();
        let cap = Arc::new(Cap::new(max, dropped));
        let family = Family::register(&registry, &cap, "x", kind, &["a"], "Help").unwrap();
        (registry, cap, family)
    }

    #[test]
    fn series_beyond_the_cap_are_counted_once_each() {
        let (registry, cap, family) = family(2, Kind::Gauge);
        for round in 0..3 {
            for label in ["one", "two", "three", "four"] {
                family.set(&[label], f64::from(round));
            }
        }
        let text = String::from_utf8(text(&registry).unwrap()).unwrap();
        assert!(
            text.contains("x{a=\"one\"} 2") && text.contains("x{a=\"two\"} 2"),
            "{text}"
        );
        assert!(!text.contains("three") && !text.contains("four"), "{text}");
        assert_eq!(cap.dropped.get(), 2);
        assert_eq!(cap.used(), 2);
    }

    #[test]
    fn a_forgotten_series_makes_room() {
        let (registry, cap, family) = family(1, Kind::Gauge);
        family.set(&["one"], 1.0);
        family.forget(&["one"]);
        family.forget(&["never there"]);
        family.set(&["two"], 2.0);
        let text = String::from_utf8(text(&registry).unwrap()).unwrap();
        assert!(!text.contains("one") && text.contains("x{a=\"two\"} 2"), "{text}");
        assert_eq!((cap.used(), cap.dropped.get()), (1, 0));
    }

    #[test]
    fn a_histogram_costs_a_series_per_line() {
        let (registry, cap, family) = family(100, Kind::Histogram(&[0.1, 1.0]));
        family.observe(&["one"], 0.5);
        family.observe(&["one"], f64::NAN);
        let text = String::from_utf8(text(&registry).unwrap()).unwrap();
        assert_eq!(
            text.lines().filter(|l| !l.starts_with('#')).count(),
            cap.used(),
            "{text}"
        );
        assert!(text.contains("x_count{a=\"one\"} 1"), "{text}");
    }

    #[test]
    fn gauges_not_named_fall_to_zero() {
        let (_registry, _cap, family) = family(10, Kind::Gauge);
        family.set(&["kept"], 4.0);
        family.set(&["gone"], 5.0);
        family.zero_all_but(&[vec!["kept"]]);
        let value = |l| match family.series(&[l]) {
            Some(Series::Gauge(g)) => g.get(),
            _ => f64::NAN,
        };
        assert_eq!((value("kept"), value("gone")), (4.0, 0.0));
    }
}
