//! Classes of sampling intervals: how well positions can be matched depends on little else as much.

/// Seconds between two positions; a vehicle belongs to the class nearest to its median interval.
pub(super) const CLASSES_S: [u32; 5] = [1, 5, 15, 30, 60];

/// The intervals of one vehicle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps([u32; CLASSES_S.len()]);

impl Gaps {
    /// Takes the time between a position and the one before it.
    pub(super) fn add(&mut self, ms: i64) {
        let away = |class: usize| (i64::from(CLASSES_S[class]) * 1000 - ms).abs();
        // `min_by_key` takes the first of equals, the shorter interval.
        let nearest = (0..CLASSES_S.len()).min_by_key(|&class| away(class));
        self.0[nearest.unwrap_or(0)] += 1;
    }

    /// The class of the median, the shorter one in the middle of two; `None` without an interval.
    pub(super) fn class(self) -> Option<usize> {
        let all: u32 = self.0.iter().sum();
        let mut sum = 0;
        (0..CLASSES_S.len()).find(|&class| {
            sum += self.0[class];
            all > 0 && 2 * sum >= all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_its_nearest_class() {
        let class = |gaps: &[i64]| {
            let mut all = Gaps::default();
            gaps.iter().for_each(|&ms| all.add(ms));
            all.class().map(|c| CLASSES_S[c])
        };
        assert_eq!(class(&[]), None);
        assert_eq!(class(&[2_000]), Some(1));
        assert_eq!(class(&[3_000]), Some(1), "half way counts as the shorter");
        assert_eq!(class(&[4_000, 6_000, 600_000]), Some(5));
        assert_eq!(class(&[1_000, 20_000, 23_000, 23_000]), Some(15));
        assert_eq!(class(&[60_000, 3_600_000]), Some(60));
    }
}
