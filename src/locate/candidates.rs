//! The places where a fix may be (algorithms §2.2, step 3).

use super::{Fix, Settings, emission};
use crate::network::{Candidate, Network};

/// Angle between heading and road, in hundredths of a degree, from which a road leads against the direction of travel.
const AGAINST: u16 = 12_000;
/// Speed in m/s above which a heading is that sure.
const AGAINST_MPS: f64 = 5.0;

/// Nearest place of the `k` nearest directed segments within reach of `fix`, nearest first.
///
/// Reach is four standard deviations, between 40 m and `radius_m`; where that is empty, `offroad_m`.
pub(super) fn find(network: &Network, fix: &Fix, settings: &Settings, out: &mut Vec<Candidate>) {
    let sigma_m = emission::sigma_m(fix, settings);
    let radius_m = (4.0 * sigma_m).clamp(40.0, f64::from(settings.radius_m).max(40.0));
    let moves = |v| f64::from(v) / 1000.0 > AGAINST_MPS;
    let heading = fix.heading.filter(|_| fix.speed.is_some_and(moves));
    network.candidates_towards(fix.position, heading, (radius_m * 1000.0) as u32, out);
    if out.is_empty() {
        network.candidates_towards(fix.position, heading, settings.offroad_m * 1000, out);
    }
    out.truncate(settings.k);
    // Roads against the direction of travel are not worth a search, as long as there are others.
    if let Some(heading) = heading
        && out.iter().any(|c| heading.difference(c.bearing) < AGAINST / 2)
    {
        out.retain(|c| heading.difference(c.bearing) < AGAINST);
    }
}
