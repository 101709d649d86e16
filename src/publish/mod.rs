//! publish: orders what assess found, decides what changed enough to be told, and encodes it.
//!
//! The digest is made here: D_k = BLAKE3(D_{k−1} ‖ pane k in canonical form), over every final state,
//! corridor, region and alert transition of the pane, told or not. A pane about which nothing is known leaves
//! it as it is.

mod encode;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use encode::{alert_json, corridor_json, match_json, region_json, segment_json, sensor_json, turn_json};
pub use settings::Settings;

use crate::assess::{Assessment, Basis, Level, Places, Profile, SegmentState, Transition};
use crate::baseline::Baseline;
use crate::locate::PaneIndex;
use crate::network::{Network, SegmentIndex};
use crate::units::EventTime;

/// What a publication is about, one for each output topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Segment states: topic `traffic.segment.state.v1`, file `segment-states.ndjson`.
    SegmentState,
    /// Corridor travel times: topic `traffic.corridor.travel_time.v1`, file `corridors.ndjson`.
    Corridor,
    /// Region indices: topic `traffic.region.index.v1`, file `regions.ndjson`.
    Region,
    /// Every transition of an alert: topic `traffic.alert.event.v1`, file `alerts.ndjson`.
    AlertEvent,
    /// The current revision of an alert (compacted): topic `traffic.alert.state.v1`; no file.
    AlertState,
}

/// One message for the world, encoded, with its deterministic identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where it goes.
    pub topic: Topic,
    /// Message key: segment, corridor, region or alert id.
    pub key: String,
    /// CloudEvents id: equal for equal content, wherever and whenever it is made.
    pub id: String,
    /// Event time of the statement: end of the pane whose closing caused it.
    pub time: EventTime,
    /// One JSON object without a line feed; `None` is a tombstone (compacted topics only).
    pub body: Option<Vec<u8>>,
}

/// A digest: the chain of BLAKE3 over all panes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Default for Digest {
    fn default() -> Self {
        Self(*blake3::hash(b"viaflux.digest/1").as_bytes())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("blake3:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Digest {
    /// The digest before the first pane: a run with another baseline is another run.
    fn before(baseline: &Baseline) -> Self {
        if !baseline.is_learned() {
            return Self::default();
        }
        let mut hash = blake3::Hasher::new();
        hash.update(&Self::default().0);
        hash.update(baseline.version().as_bytes());
        Self(*hash.finalize().as_bytes())
    }

    /// The digest after a pane. States and transitions stand in the order of their ids.
    ///
    /// The canonical form is the pane's number and the postcard encoding of its parts: integers, and the names of sources.
    #[must_use]
    fn after(self, pane: &Assessment) -> Self {
        let parts = (&pane.states, &pane.corridors, &pane.regions, &pane.alerts);
        if pane.states.is_empty()
            && pane.corridors.is_empty()
            && pane.regions.is_empty()
            && pane.alerts.is_empty()
        {
            return self;
        }
        let bytes = postcard::to_stdvec(&parts).expect("integers, options and lists always encode");
        let mut hash = blake3::Hasher::new();
        hash.update(&self.0);
        hash.update(&pane.pane.to_le_bytes());
        hash.update(&bytes);
        Self(*hash.finalize().as_bytes())
    }
}

/// What was last told of a segment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Told {
    level: Level,
    basis: Basis,
    ratio_permille: Option<u32>,
    at: EventTime,
}

/// The machine. What survives in checkpoints is [`Publish::state`].
#[derive(Debug)]
pub struct Publish {
    network: Arc<Network>,
    /// Its version.
    baseline: String,
    places: Arc<Places>,
    profile: Arc<Profile>,
    settings: Settings,
    state: State,
}

/// What must survive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    told: BTreeMap<SegmentIndex, Told>,
    digest: Digest,
    pane: Option<PaneIndex>,
}

impl Publish {
    /// A machine that has told nothing yet.
    pub fn new(
        network: Arc<Network>,
        baseline: &Baseline,
        places: Arc<Places>,
        profile: Arc<Profile>,
        settings: Settings,
    ) -> Self {
        let state = State {
            digest: Digest::before(baseline),
            ..State::default()
        };
        Self {
            network,
            baseline: baseline.version().to_owned(),
            places,
            profile,
            settings,
            state,
        }
    }

    /// What must survive.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// The chain up to the last closed pane, and that pane.
    pub fn digest(&self) -> (Digest, Option<PaneIndex>) {
        (self.state.digest, self.state.pane)
    }

    /// Takes an assessed pane and gives what is to be told of it, states first, then corridors, regions and
    /// alerts, each in order of id.
    pub fn step(&mut self, pane: &Assessment, out: &mut Vec<Publication>) {
        self.state.digest = self.state.digest.after(pane);
        self.state.pane = Some(pane.pane);
        for state in &pane.states {
            if self.due(state) {
                self.told(state);
                out.push(self.segment(state));
            }
        }
        for time in &pane.corridors {
            let id = &self.places.corridors[time.corridor as usize].id;
            let body = corridor_json(&self.places, time);
            out.push(publication(Topic::Corridor, id.clone(), time.time, body));
        }
        for index in &pane.regions {
            let id = &self.places.regions[index.region as usize].id;
            let body = region_json(&self.places, &self.profile, index);
            out.push(publication(Topic::Region, id.clone(), index.time, body));
        }
        for alert in &pane.alerts {
            let body = alert_json(&self.network, &self.baseline, &self.places, alert);
            for topic in [Topic::AlertEvent, Topic::AlertState] {
                out.push(Publication {
                    topic,
                    key: alert.id.to_string(),
                    id: format!("{}.{}", alert.id, alert.revision),
                    time: alert.updated_at,
                    body: Some(body.clone()),
                });
            }
            debug_assert!(alert.transition != Transition::Resolved || alert.ends_at.is_some());
        }
        for id in &pane.forgotten {
            out.push(Publication {
                topic: Topic::AlertState,
                key: id.to_string(),
                id: format!("{id}.tombstone"),
                time: EventTime::from_ms(0),
                body: None,
            });
        }
    }

    /// Whether a state differs enough from what was told, or has not been told for a while.
    fn due(&self, state: &SegmentState) -> bool {
        let Some(told) = self.state.told.get(&state.segment) else {
            return true;
        };
        let step = match (told.ratio_permille, state.ratio_permille) {
            (Some(a), Some(b)) => a.abs_diff(b) >= self.settings.ratio_step_permille,
            (a, b) => a != b,
        };
        self.settings.every_pane
            || step
            || told.level != state.level
            || told.basis != state.basis
            || state.window_end.since(told.at) >= i64::from(self.settings.heartbeat_s) * 1000
    }

    fn told(&mut self, state: &SegmentState) {
        if state.level == Level::Unknown {
            self.state.told.remove(&state.segment);
            return;
        }
        self.state.told.insert(
            state.segment,
            Told {
                level: state.level,
                basis: state.basis,
                ratio_permille: state.ratio_permille,
                at: state.window_end,
            },
        );
    }

    fn segment(&self, state: &SegmentState) -> Publication {
        let key = self.network.segment(state.segment).key.to_string();
        publication(
            Topic::SegmentState,
            key,
            state.window_end,
            segment_json(&self.network, &self.baseline, &self.profile, state, false),
        )
    }
}

fn publication(topic: Topic, key: String, time: EventTime, body: Vec<u8>) -> Publication {
    let id = format!("{key}@{}", time.ms());
    Publication {
        topic,
        key,
        id,
        time,
        body: Some(body),
    }
}
