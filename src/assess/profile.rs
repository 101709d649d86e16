//! Graded scales on top of the canonical level: data from `config/profiles/*.toml`, not code.

use serde::{Deserialize, Serialize};

/// A graded scale with its source.
///
/// `verified` says that the numbers were read in the issuer's own text or a transcription of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name in the configuration and in messages.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Grade of a segment.
    pub grade: Grade,
    /// Index of a region.
    pub index: Index,
}

/// Section `[grade]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grade {
    /// What the thresholds are of.
    pub kind: GradeKind,
    /// Names of the grades, best first; one more than `ratio`.
    pub labels: Vec<String>,
    /// The same in Chinese.
    #[serde(default)]
    pub labels_zh: Vec<String>,
    /// Falling thresholds between the grades, shares of free-flow speed.
    pub ratio: Vec<f64>,
    /// Which grade a threshold itself belongs to.
    pub bound_belongs_to: Side,
    /// Whether the numbers were read at their source.
    pub verified: bool,
    /// Where they were read.
    pub source: String,
}

/// What a grade's thresholds are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradeKind {
    /// Speed by free-flow speed.
    Ratio,
}

/// Sides of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The better grade.
    Better,
    /// The worse grade.
    Worse,
}

/// Section `[index]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// What the bands are of.
    pub kind: IndexKind,
    /// Four rising bounds between the bands 0–2, 2–4, 4–6, 6–8, 8–10.
    pub bounds: [f64; 4],
    /// Whether the numbers were read at their source.
    pub verified: bool,
    /// Where they were read.
    pub source: String,
}

/// What an index's bands are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// Delay time proportion, (t − t_ff) / t, 0 to 1.
    Dtp,
}

/// A threshold in permille; profiles give shares with two or three decimals.
fn permille(share: f64) -> u32 {
    (share * 1000.0).round() as u32
}

impl Profile {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.grade.labels.len() != self.grade.ratio.len() + 1 {
            return Err(format!(
                "grade.labels has {} entries; {} thresholds in grade.ratio need {}",
                self.grade.labels.len(),
                self.grade.ratio.len(),
                self.grade.ratio.len() + 1
            ));
        }
        if !self.grade.labels_zh.is_empty() && self.grade.labels_zh.len() != self.grade.labels.len() {
            return Err("grade.labels_zh and grade.labels differ in length".to_owned());
        }
        if self.grade.labels.len() > 32 {
            return Err("grade.labels has more than 32 entries".to_owned());
        }
        if !self.grade.ratio.iter().all(|r| (0.0..=2.0).contains(r))
            || !self.grade.ratio.is_sorted_by(|a, b| a > b)
        {
            return Err("grade.ratio must fall from grade to grade, between 0 and 2".to_owned());
        }
        if !self.index.bounds.iter().all(|b| (0.0..=1.0).contains(b))
            || !self.index.bounds.is_sorted_by(|a, b| a < b)
        {
            return Err("index.bounds must rise, between 0 and 1".to_owned());
        }
        Ok(())
    }

    /// Grade of a speed ratio in permille: 1 is the best.
    pub fn grade(&self, ratio_permille: u32) -> u8 {
        let worse = |bound: &&f64| match self.grade.bound_belongs_to {
            Side::Worse => ratio_permille <= permille(**bound),
            Side::Better => ratio_permille < permille(**bound),
        };
        1 + self.grade.ratio.iter().filter(worse).count() as u8
    }

    /// Name of a grade, `None` if there is no such grade.
    pub fn label(&self, grade: u8) -> Option<&str> {
        let i = usize::from(grade).checked_sub(1)?;
        self.grade.labels.get(i).map(String::as_str)
    }

    /// Index of a region in hundredths, 0 to 1000, from its delay time proportion in permille: linear inside
    /// each band of two.
    pub fn index_centi(&self, dtp_permille: u32) -> u32 {
        let bounds = self.index.bounds.map(permille);
        let edges = [0, bounds[0], bounds[1], bounds[2], bounds[3], 1000];
        let dtp = dtp_permille.min(1000);
        let band = (0..5).rev().find(|&b| dtp >= edges[b]).unwrap_or(0);
        let (low, high) = (edges[band], edges[band + 1]);
        200 * band as u32 + (200 * (dtp - low)).checked_div(high - low).unwrap_or(200)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// GB/T 33171-2016 as in `config/profiles/`, which a test of the configuration compares with the file.
    pub(crate) fn gbt() -> Profile {
        Profile {
            id: "gbt33171-2016".into(),
            name: "GB/T 33171-2016".into(),
            grade: Grade {
                kind: GradeKind::Ratio,
                labels: [
                    "unobstructed",
                    "basically_unobstructed",
                    "light",
                    "moderate",
                    "severe",
                ]
                .map(String::from)
                .to_vec(),
                labels_zh: Vec::new(),
                ratio: vec![0.70, 0.50, 0.40, 0.30],
                bound_belongs_to: Side::Worse,
                verified: true,
                source: "test".into(),
            },
            index: Index {
                kind: IndexKind::Dtp,
                bounds: [0.3, 0.5, 0.6, 0.7],
                verified: false,
                source: "test".into(),
            },
        }
    }

    #[test]
    fn exactly_seventy_percent_is_the_second_grade() {
        let p = gbt();
        assert_eq!(
            [701, 700, 500, 400, 300, 0].map(|r| p.grade(r)),
            [1, 2, 3, 4, 5, 5]
        );
        assert_eq!(p.label(4), Some("moderate"));
        assert_eq!(p.label(6), None);
    }

    #[test]
    fn index_is_linear_in_its_bands() {
        let p = gbt();
        assert_eq!(
            [0, 150, 300, 400, 550, 700, 1000].map(|d| p.index_centi(d)),
            [0, 100, 200, 300, 500, 800, 1000]
        );
    }

    #[test]
    fn a_profile_that_does_not_fall_is_refused() {
        let mut p = gbt();
        p.grade.ratio[1] = 0.8;
        assert!(p.validate().is_err());
        p = gbt();
        p.grade.labels.pop();
        assert!(p.validate().is_err_and(|e| e.contains("labels")));
        assert!(gbt().validate().is_ok());
    }
}
