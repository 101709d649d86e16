//! `viaflux baseline`: learned speeds, from recorded events to a file, and from the file to a run.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::city::City;
use super::cli::{Global, UsageError};
use super::config::{self, Config};
use super::driver::{Driver, Outlet};
use super::files::Drive;
use super::pace::Speed;
use super::recorded::Recorded;
use crate::baseline::{Baseline, Calendar, Collector, Holidays, Learned, LinkHistory};
use crate::engine::{Batch, Engine, Output};
use crate::network::Network;
use crate::units::{MmPerS, kph};

/// The baseline that a configuration names, on its map; the map's prior if it names none.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn load(network: &Arc<Network>, config: &config::Baseline) -> Result<Baseline> {
    let Some(path) = &config.file else {
        return Ok(Baseline::prior(Arc::clone(network)));
    };
    let learned = read(path)?;
    let calendar = calendar(&learned.zone, config.holidays.as_deref())
        .with_context(|| format!("baseline {}", path.display()))?;
    let (baseline, fit) = Baseline::new(Arc::clone(network), &learned, calendar);
    if fit.found == 0 {
        bail!(
            "baseline {}: learned on map {}, and this map ({}) has none of its {} links; build one for this map with \
             `viaflux baseline build`",
            path.display(),
            learned.map_version,
            network.version(),
            fit.of
        );
    }
    if !fit.same_map {
        tracing::warn!(
            baseline = %path.display(), learned_on = %learned.map_version, map = %network.version(),
            "the baseline was learned on another map; {} of its {} links were found again by their keys", fit.found, fit.of
        );
    }
    Ok(baseline)
}

fn read(path: &Path) -> Result<Learned> {
    let named = || format!("baseline {}", path.display());
    let file = File::open(path).with_context(named)?;
    Learned::read(file).with_context(named)
}

fn calendar(zone: &str, holidays: Option<&Path>) -> Result<Calendar> {
    let Some(path) = holidays else {
        return Calendar::new(zone, &Holidays::default()).map_err(anyhow::Error::msg);
    };
    let named = || format!("holidays {}", path.display());
    let text = fs::read_to_string(path).with_context(named)?;
    let holidays = toml::from_str(&text).with_context(named)?;
    Calendar::new(zone, &holidays)
        .map_err(anyhow::Error::msg)
        .with_context(named)
}

/// Learn free-flow and usual speeds from recorded events, and describe them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux baseline build --map city.map --log november.ndjson.zst --zone Asia/Shanghai -o city.baseline
  viaflux baseline build --map city.map --log december.ndjson.zst --update city.baseline -o city-2.baseline
  viaflux baseline info city.baseline
  viaflux replay --map city.map --log monday.ndjson.zst --baseline city.baseline -o out")]
pub struct BaselineArgs {
    #[command(subcommand)]
    command: BaselineCommand,
}

#[derive(Debug, Subcommand)]
enum BaselineCommand {
    Build(BuildArgs),
    Info(InfoArgs),
}

impl BaselineArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What cannot be read, written or understood.
    pub fn run(self, global: &Global) -> Result<()> {
        match self.command {
            BaselineCommand::Build(args) => args.run(global),
            BaselineCommand::Info(args) => args.run(global),
        }
    }
}

/// Learn free-flow and usual speeds from recorded events.
#[derive(Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    recorded: Recorded,
    /// Time zone of the city, such as Asia/Shanghai; it beats `baseline.zone`
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Days that are not what their weekday says (TOML); it beats `baseline.holidays`
    #[arg(long, value_name = "FILE")]
    holidays: Option<PathBuf>,
    /// Go on from this baseline: the new days are weighed against those that it has seen
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// Baseline to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Threads of the engine; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::thread_count)]
    threads: usize,
}

impl BuildArgs {
    fn run(self, global: &Global) -> Result<()> {
        let mut config = global.configure(&[])?.config;
        self.recorded.configure(&mut config)?;
        let before = self.update.as_deref().map(read).transpose()?;
        let zone = match (self.zone, &config.baseline.zone, &before) {
            (Some(zone), _, _) => zone,
            (None, Some(zone), _) => zone.clone(),
            (None, None, Some(before)) => before.zone.clone(),
            (None, None, None) => {
                let text = "slots are in the city's local time; say its time zone with --zone, or `baseline.zone` in \
                            the configuration";
                return Err(UsageError(text.to_owned()).into());
            }
        };
        let holidays = self.holidays.as_ref().or(config.baseline.holidays.as_ref());
        let calendar = calendar(&zone, holidays.map(PathBuf::as_path))?;
        patient(&mut config);
        // What is learned must not depend on what was learned before.
        config.baseline.file = None;
        let city = City::load(&config)?;
        let (collector, lost) = Collector::new(Arc::clone(&city.network), calendar, before.as_ref())
            .map_err(anyhow::Error::msg)
            .context("--update")?;
        if lost > 0 {
            tracing::warn!("{lost} links of the baseline to update are not on this map and are left out");
        }
        let pupil = Rc::new(RefCell::new(Some(collector)));
        let outlet = Pupil(Rc::clone(&pupil));
        let threads = super::threads(self.threads);
        let how = Drive {
            speed: Speed::Max,
            drain: true,
            sort: false,
        };
        let make = |config: &Config, logs| {
            let engine = Engine::new(city.setup(config, logs, threads, false)).learning();
            Driver::new(
                engine,
                None,
                vec![Box::new(outlet) as Box<dyn Outlet>],
                None,
                Duration::MAX,
            )
        };
        let driver = self.recorded.drive(&config, &city, how, make, false)?;
        driver.of_use()?;
        let Some(collector) = pupil.borrow_mut().take() else {
            bail!("the collector was taken twice");
        };
        let learned = collector.finish();
        if learned.links.is_empty() {
            bail!("no vehicle was located on a link of the map, so nothing was learned; no file was written");
        }
        save(&learned, &self.output)?;
        tell(&self.output, &learned, global.json)
    }
}

/// Takes what the engine gives of every pane to the collector.
#[derive(Debug)]
struct Pupil(Rc<RefCell<Option<Collector>>>);

impl Outlet for Pupil {
    fn take(&mut self, _: &Engine, _: &Batch, output: &Output) -> Result<()> {
        if let Some(collector) = self.0.borrow_mut().as_mut() {
            output.travel.iter().for_each(|travel| collector.observe(travel));
        }
        Ok(())
    }
}

/// Waits for late records: what a live run must do without may still be learned from.
fn patient(config: &mut Config) {
    let patience = config.baseline.late_full_s;
    config.ingest.allowed_lateness_s = config.ingest.allowed_lateness_s.max(patience);
    for source in &mut config.source {
        source.allowed_lateness_s = source.allowed_lateness_s.map(|s| s.max(patience));
    }
}

/// Writes beside `path`, brings it to disk and renames, so that a reader never sees half a file.
fn save(learned: &Learned, path: &Path) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        learned.write(BufWriter::new(&mut file))?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|error| {
        // The half-written file is of no use; that it cannot be removed either adds nothing to the error.
        let _ = fs::remove_file(&part);
        anyhow::Error::new(error).context(format!("writing baseline {}", path.display()))
    })
}

/// Describe a baseline.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Baseline
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show the free flow and the week of this link, named by its first segment
    #[arg(long, value_name = "SEGMENT_ID")]
    link: Option<crate::network::SegmentKey>,
}

impl InfoArgs {
    fn run(self, global: &Global) -> Result<()> {
        let learned = read(&self.file)?;
        let Some(key) = self.link else {
            return tell(&self.file, &learned, global.json);
        };
        let Some(link) = learned.links.iter().find(|l| l.key == key) else {
            bail!("{} has learned nothing of a link `{key}`", self.file.display());
        };
        super::cli::print(&if global.json {
            format!("{}\n", serde_json::to_string_pretty(&link_json(link))?)
        } else {
            link_text(link)
        })?;
        Ok(())
    }
}

fn tenths(speed: MmPerS) -> f64 {
    (kph(speed) * 10.0).round() / 10.0
}

fn info(path: &Path, learned: &Learned) -> Value {
    let links = &learned.links;
    let seen = links
        .iter()
        .map(|l| l.week.days.iter().filter(|n| **n > 0).count());
    let mean = |speed: &dyn Fn(&LinkHistory) -> MmPerS| {
        let sum: u64 = links.iter().map(|l| u64::from(speed(l))).sum();
        tenths((sum / (links.len() as u64).max(1)) as MmPerS)
    };
    let at_night = links.iter().filter(|l| l.free_flow.night_samples > 0).count();
    json!({
        "baseline": path,
        "version": learned.version(),
        "map_version": learned.map_version,
        "zone": learned.zone,
        "days": learned.days,
        "last_day": learned.last_day,
        "links": links.len(),
        "links_with_night": at_night,
        "slots_seen": seen.sum::<usize>(),
        "mean_free_flow_kph": mean(&|l| l.free_flow.used),
        "mean_prior_kph": mean(&|l| l.free_flow.prior),
    })
}

fn tell(path: &Path, learned: &Learned, as_json: bool) -> Result<()> {
    let info = info(path, learned);
    if as_json {
        super::cli::print(&format!("{}\n", serde_json::to_string_pretty(&info)?))?;
        return Ok(());
    }
    let text = |key: &str| info[key].to_string();
    super::cli::print(&format!(
        "{}: baseline {}\n\
         {:>12}  links learned, {} of them at night too\n\
         {:>12}  quarter hours of kinds of day seen\n\
         {:>12}  days, the last {}; slots in the time of {}\n\
         {:>12}  km/h mean free flow; {} from limit and class\n\
         learned on map {}\n",
        path.display(),
        learned.version(),
        learned.links.len(),
        info["links_with_night"],
        text("slots_seen"),
        learned.days,
        learned.last_day,
        learned.zone,
        text("mean_free_flow_kph"),
        info["mean_prior_kph"],
        learned.map_version,
    ))?;
    Ok(())
}

const DAY_NAMES: [&str; crate::baseline::DAYS] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "holiday"];

/// What was seen, slot by slot: (day, `HH:MM`, km/h, variation, days).
fn seen(link: &LinkHistory) -> impl Iterator<Item = (&'static str, String, f64, Option<f64>, u8)> + '_ {
    let week = &link.week;
    let slots = (0..week.days.len()).filter(|slot| week.days[*slot] > 0);
    slots.map(|slot| {
        let quarter = slot % crate::baseline::QUARTERS;
        let variation = Some(f64::from(week.variation[slot]) / 100.0).filter(|v| *v > 0.0);
        (
            DAY_NAMES[slot / crate::baseline::QUARTERS],
            format!("{:02}:{:02}", quarter / 4, quarter % 4 * 15),
            f64::from(week.speed[slot]) / 2.0,
            variation,
            week.days[slot],
        )
    })
}

fn link_json(link: &LinkHistory) -> Value {
    let flow = &link.free_flow;
    let some = |speed: MmPerS| Some(tenths(speed)).filter(|v| *v > 0.0);
    let slots: Vec<Value> = seen(link)
        .map(|(day, time, speed, variation, days)| {
            json!({ "day": day, "time": time, "speed_kph": speed, "variation": variation, "days": days })
        })
        .collect();
    json!({
        "link_id": link.key.to_string(),
        "length_m": link.length_m,
        "free_flow_speed_kph": tenths(flow.used),
        "day_speed_kph": some(flow.day),
        "night_speed_kph": some(flow.night),
        "prior_speed_kph": tenths(flow.prior),
        "day_passages": flow.day_passages,
        "night_samples": flow.night_samples,
        "slots": slots,
    })
}

fn link_text(link: &LinkHistory) -> String {
    let flow = &link.free_flow;
    let some = |speed: MmPerS| match speed {
        0 => "not seen".to_owned(),
        v => format!("{} km/h", tenths(v)),
    };
    let mut text = format!(
        "{}, {} m: free flow {} km/h\n  best ninth of the day {} ({} passages); night {} ({} samples); prior {} km/h\n",
        link.key,
        link.length_m,
        tenths(flow.used),
        some(flow.day),
        flow.day_passages,
        some(flow.night),
        flow.night_samples,
        tenths(flow.prior),
    );
    for (day, time, speed, variation, days) in seen(link) {
        let variation = variation.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
        text += &format!("{day:>9} {time} {speed:>6.1} km/h  variation {variation:>4}  {days} days\n");
    }
    text
}
