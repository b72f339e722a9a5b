//! The loops of a file: what stands between a jump back inside a function and where it leads. Where a compiler lays a part of a
//! loop's body elsewhere, that part is not seen.

/// First and last instruction of each loop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loops(Vec<(u64, u64)>);

impl Loops {
    /// Notes a jump of a function that starts at `start`.
    pub(super) fn note(&mut self, start: u64, at: u64, to: u64) {
        if (start..=at).contains(&to) {
            self.0.push((to, at));
        }
    }

    /// Those of both; loops that overlap become one.
    pub(super) fn join(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self.0.sort_unstable();
        self.0.dedup_by(|next, one| {
            let is_inside = next.0 <= one.1;
            one.1 = if is_inside { one.1.max(next.1) } else { one.1 };
            is_inside
        });
        self
    }

    /// An instruction stands in a joined loop.
    pub(super) fn contains(&self, at: u64) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= at);
        after.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|(_, to)| at <= *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_in_loops_are_one() {
        let mut loops = Loops::default();
        for (start, at, to) in [(10, 25, 20), (10, 40, 12), (10, 30, 28), (10, 50, 60), (50, 55, 45)] {
            loops.note(start, at, to);
        }
        let mut more = Loops::default();
        more.note(70, 80, 75);
        let joined = loops.join(more);
        assert_eq!(joined, Loops(vec![(12, 40), (75, 80)]));
        let inside = [11, 12, 35, 40, 41, 75, 81].map(|at| joined.contains(at));
        assert_eq!(inside, [false, true, true, true, false, true, false]);
    }
}
