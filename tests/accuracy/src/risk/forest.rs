//! A random forest of regression trees over 0 and 1, Breiman 2001: each tree of a sample drawn with replacement, each split of a few
//! features drawn. Its trees are those of the model: smartcore keeps the nodes of its own to itself.

use runtime_bridge::risk::{COUNT, Features, Node};

/// How trees grow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    pub(crate) trees: usize,
    pub(crate) depth: u32,
    /// Examples of a leaf, at least.
    pub(crate) leaf: usize,
    /// Features tried for a split.
    pub(crate) tried: usize,
    pub(crate) seed: u64,
}

/// Trees over rows and whether each is an attack.
pub(crate) fn grow(rows: &[(Features, bool)], growth: Growth) -> Vec<Vec<Node>> {
    let mut random = Random(growth.seed);
    let tree = |_| {
        let mut drawn: Vec<&(Features, bool)> = rows.iter().map(|_| &rows[random.below(rows.len())]).collect();
        let mut nodes = Vec::new();
        split(&mut nodes, &mut drawn, growth, growth.depth, &mut random);
        nodes
    };
    (0..growth.trees).map(tree).collect()
}

/// Adds a node over these rows and all below it; its place.
fn split(
    nodes: &mut Vec<Node>,
    rows: &mut [&(Features, bool)],
    growth: Growth,
    depth: u32,
    random: &mut Random,
) -> usize {
    let place = nodes.len();
    let attacks = rows.iter().filter(|(_, is_attack)| *is_attack).count();
    nodes.push(Node(rounded(attacks as f64 / rows.len() as f64, 1e4), None));
    if depth == 0 || attacks == 0 || attacks == rows.len() {
        return place;
    }
    let Some((feature, value)) = best(rows, growth, random) else { return place };
    rows.sort_by(|(one, _), (other, _)| one[feature].total_cmp(&other[feature]));
    let at = rows.partition_point(|(row, _)| row[feature] <= value);
    let (no_more, more) = rows.split_at_mut(at);
    let no_more = split(nodes, no_more, growth, depth - 1, random);
    let more = split(nodes, more, growth, depth - 1, random);
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    nodes[place].1 = Some((u16::try_from(feature).unwrap_or(u16::MAX), value, number(no_more), number(more)));
    place
}

/// The split that leaves the least variance, among some features.
fn best(rows: &[&(Features, bool)], growth: Growth, random: &mut Random) -> Option<(usize, f64)> {
    let mut features: Vec<usize> = (0..COUNT).collect();
    let mut best: Option<(f64, usize, f64)> = None;
    let mut tried = 0;
    let mut values: Vec<(f64, bool)> = Vec::with_capacity(rows.len());
    while tried < growth.tried && !features.is_empty() {
        let feature = features.swap_remove(random.below(features.len()));
        values.clear();
        values.extend(rows.iter().map(|(row, is_attack)| (row[feature], *is_attack)));
        values.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        let (first, last) = (values.first()?.0, values.last()?.0);
        // One that is the same everywhere is none.
        if first >= last {
            continue;
        }
        tried += 1;
        let all = values.iter().filter(|(_, is_attack)| *is_attack).count() as f64;
        let mut attacks = 0.0;
        for (index, pair) in values.windows(2).enumerate() {
            attacks += if pair[0].1 { 1.0 } else { 0.0 };
            let (before, after) = (index + 1, values.len() - index - 1);
            if pair[0].0 >= pair[1].0 || before < growth.leaf || after < growth.leaf {
                continue;
            }
            // Of 0 and 1, the variance within is least where this is most.
            let score = attacks * attacks / before as f64 + (all - attacks) * (all - attacks) / after as f64;
            if best.is_none_or(|(most, ..)| score > most + 1e-9) {
                // Rounded, it still lies between the two.
                best = Some((score, feature, rounded(f64::midpoint(pair[0].0, pair[1].0), 1e5)));
            }
        }
    }
    best.map(|(_, feature, value)| (feature, value))
}

fn rounded(value: f64, digits: f64) -> f64 {
    (value * digits).round() / digits
}

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % count.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forest_finds_what_two_features_say_together() {
        let row = |one: f64, other: f64| {
            let mut row = [0.0; COUNT];
            (row[3], row[5]) = (one, other);
            (row, (one > 0.5) != (other > 0.5))
        };
        let rows: Vec<_> = (0..400).map(|i| row(f64::from(i % 20) / 20.0, f64::from(i / 20) / 20.0)).collect();
        let growth = Growth { trees: 30, depth: 6, leaf: 3, tried: 2, seed: 1 };
        let trees = grow(&rows, growth);
        assert_eq!(trees, grow(&rows, growth));
        assert_ne!(trees, grow(&rows, Growth { seed: 2, ..growth }));
        let share = |row: &Features| {
            let leaf = |tree: &Vec<Node>| {
                let mut node = tree[0];
                while let Some((feature, value, no_more, more)) = node.1 {
                    node = tree[if row[feature as usize] > value { more } else { no_more } as usize];
                }
                node.0
            };
            trees.iter().map(leaf).sum::<f64>() / trees.len() as f64
        };
        let right = rows.iter().filter(|(row, is_attack)| (share(row) > 0.5) == *is_attack).count();
        assert!(right >= 380, "{right} of 400");
    }
}
