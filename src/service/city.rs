//! What an engine runs on: the map, its sensor sites, regions, corridors and the graded scale, loaded once
//! from the paths of the configuration.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::config::{Config, Source};
use crate::assess::{Places, Profile};
use crate::baseline::Baseline;
use crate::engine::{LogSpec, Setup};
use crate::ingest::{Area, Decoder, FieldMapping, SubjectKey};
use crate::locate::Sites;
use crate::network::Network;
use crate::network::sites::{BoundSite, SensorSite, bind, read_sites};

/// Profiles that every binary carries.
const PROFILES: [&str; 1] = [include_str!("../../config/profiles/gbt33171-2016.toml")];

/// The unchanging ground of a run.
#[derive(Clone, Debug)]
pub struct City {
    /// The road network.
    pub network: Arc<Network>,
    /// Free-flow and usual speeds on it.
    pub baseline: Arc<Baseline>,
    /// Sensors bound to segments.
    pub sites: Arc<Sites>,
    /// Regions and corridors.
    pub places: Arc<Places>,
    /// Graded scale.
    pub profile: Arc<Profile>,
}

/// Where the records of an input log stand.
#[derive(Clone, Copy, Debug)]
pub enum LogDoor<'a> {
    /// In a partition of a topic.
    Partition(&'a str, u32),
    /// In a log that is all of its source: a file, or the simulated city.
    Whole {
        /// Its name for people.
        name: &'a str,
        /// The columns of a CSV file.
        header: Option<&'a [String]>,
        /// Lanes to which its records are dealt by id.
        lanes: u16,
    },
}

impl City {
    /// Loads everything that `config` names.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(config: &Config) -> Result<Self> {
        let network = Network::load(&config.map.file)?;
        let sites = match &config.map.sensors {
            Some(path) => read_sites(path).with_context(|| format!("sensor sites {}", path.display()))?,
            None => Vec::new(),
        };
        Self::of(Arc::new(network), &sites, config)
    }

    /// The ground of a network that is already there.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn of(network: Arc<Network>, sites: &[SensorSite], config: &Config) -> Result<Self> {
        let bound = bind(&network, sites);
        for (sensor, reason) in &bound.unbound {
            tracing::warn!(%sensor, reason = %reason.label(), "a sensor stands on no segment; its measurements are refused");
        }
        let key = |id: &str| SubjectKey::of(id);
        let of = |s: &BoundSite| (key(&s.sensor_id), s.segment);
        let segments = bound.sites.iter().map(of).collect();
        let named = |s: &BoundSite| (key(&s.sensor_id), Box::from(s.sensor_id.as_str()));
        let ids = bound.sites.iter().map(named).collect();
        let placed = |s: &BoundSite| (key(&s.sensor_id), s.offset_mm);
        let offsets_mm = bound.sites.iter().map(placed).collect();
        let places = super::places::load(&network, &config.map)?;
        let profile = profile(config)?;
        let baseline = super::baseline::load(&network, &config.baseline)?;
        Ok(Self {
            baseline: Arc::new(baseline),
            network,
            sites: Arc::new(Sites {
                segments,
                ids,
                offsets_mm,
            }),
            places: Arc::new(places),
            profile: Arc::new(profile),
        })
    }

    /// An input log of `source`.
    ///
    /// # Errors
    /// What is wrong with the source's field mapping.
    pub fn log(
        &self,
        config: &Config,
        source: &Source,
        door: LogDoor<'_>,
        keep_ids: bool,
    ) -> Result<LogSpec> {
        let mapping = source
            .mapping()
            .map_err(|(key, problem)| anyhow::anyhow!("source `{}`, {key}: {problem}", source.name()))?;
        let mut settings = config.ingest.clone();
        settings.max_future_s = source.max_future_s.unwrap_or(settings.max_future_s);
        settings.allowed_lateness_s = source.allowed_lateness_s.unwrap_or(settings.allowed_lateness_s);
        let (south_west, north_east) = self.network.bounds();
        let area = Area::around(south_west, north_east, settings.area_margin_m);
        let sensors: Arc<HashSet<SubjectKey>> = Arc::new(self.sites.segments.keys().copied().collect());
        let feed = mapping.feed;
        let (name, of, header, lanes) = match door {
            LogDoor::Partition(topic, number) => (format!("{topic}/{number}"), topic.to_owned(), None, 1),
            LogDoor::Whole { name, header, lanes } => (name.to_owned(), name.to_owned(), header, lanes),
        };
        if let Some(header) = header {
            for (field, place) in &mapping.fields {
                if FieldMapping::required(feed).contains(field) && !header.contains(&place.path) {
                    bail!(
                        "{name}: no column `{}`; the header row has {}",
                        place.path,
                        header.join(", ")
                    );
                }
            }
        }
        let decoder = Decoder::new(mapping, header, settings.clone(), area, sensors).keep_ids(keep_ids);
        Ok(LogSpec {
            name,
            source: of,
            decoder: Arc::new(decoder),
            feed,
            lanes,
            lateness_ms: i64::from(settings.allowed_lateness_s) * 1000,
            settings,
        })
    }

    /// What an engine over `logs` is made of.
    pub fn setup(&self, config: &Config, logs: Vec<LogSpec>, threads: usize, observe: bool) -> Setup {
        Setup {
            network: Arc::clone(&self.network),
            baseline: Arc::clone(&self.baseline),
            sites: Arc::clone(&self.sites),
            places: Arc::clone(&self.places),
            profile: Arc::clone(&self.profile),
            locate: config.locate.clone(),
            aggregate: config.aggregate.clone(),
            assess: config.assess.clone(),
            publish: config.publish.clone(),
            logs,
            threads: threads.max(1),
            observe,
            config_hash: self.hash(config),
        }
    }

    /// Hash of everything that can change results: keys of the configuration, and the content of the files that
    /// they name (the map has a version of its own).
    fn hash(&self, config: &Config) -> [u8; 32] {
        let files = (&*self.places, &self.sites.segments);
        let mut hash = blake3::Hasher::new();
        hash.update(config.hash().as_bytes());
        hash.update(&postcard::to_stdvec(&files).expect("lists of names and numbers always encode"));
        hash.update(&serde_json::to_vec(&*self.profile).expect("a profile came from text"));
        // The file has a version of its own; which days are holidays stands beside it.
        if let Some(calendar) = self.baseline.calendar() {
            let days: Vec<_> = calendar.days().collect();
            hash.update(&postcard::to_stdvec(&days).expect("lists of names always encode"));
        }
        *hash.finalize().as_bytes()
    }
}

/// The configured profile, from the built-in ones and the files named.
fn profile(config: &Config) -> Result<Profile> {
    let mut known = Vec::new();
    for text in PROFILES {
        known.push(parse_profile(text).context("a built-in profile")?);
    }
    for path in &config.profile.files {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading profile {}", path.display()))?;
        known.push(parse_profile(&text).with_context(|| format!("profile {}", path.display()))?);
    }
    let names: Vec<String> = known.iter().map(|p| p.id.clone()).collect();
    match known.into_iter().rev().find(|p| p.id == config.profile.id) {
        Some(profile) => Ok(profile),
        None => bail!(
            "profile.id: no profile `{}`; known are {}",
            config.profile.id,
            names.join(", ")
        ),
    }
}

fn parse_profile(text: &str) -> Result<Profile> {
    let profile: Profile = toml::from_str(text)?;
    profile.validate().map_err(anyhow::Error::msg)?;
    Ok(profile)
}
