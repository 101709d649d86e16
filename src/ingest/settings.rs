use serde::{Deserialize, Serialize};

/// Settings of ingest (section `[ingest]`). All of them can change results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// How far a clock may run ahead, in seconds: of append time where the log gives one, else of the
    /// greatest accepted event time.
    pub max_future_s: u32,
    /// Without append time: how many successive records must agree before a jump ahead is believed.
    pub future_agree: u32,
    /// Without append time: how many records of one id alone make it the only one of its log.
    pub future_alone: u32,
    /// Lanes that a plain file is dealt to by id.
    pub virtual_partitions: u16,
    /// How far behind the greatest event time a record is still taken, in seconds.
    pub allowed_lateness_s: u32,
    /// Worst accuracy taken, in metres.
    pub max_accuracy_m: u32,
    /// Least number of satellites, where the feed gives it.
    pub min_satellites: u8,
    /// Greatest speed believed, in m/s.
    pub speed_max_mps: u32,
    /// Longest record in bytes.
    pub record_bytes_max: u32,
    /// How far outside the map's bounds a position may lie, in metres.
    pub area_margin_m: u32,
    /// Most records waiting for their order in one log.
    pub order_buffer_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_future_s: 60,
            future_agree: 3,
            future_alone: 100,
            virtual_partitions: 16,
            allowed_lateness_s: 15,
            max_accuracy_m: 50,
            min_satellites: 4,
            speed_max_mps: 100,
            record_bytes_max: 65_536,
            area_margin_m: 2_000,
            order_buffer_max: 4_000_000,
        }
    }
}
