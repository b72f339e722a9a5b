//! The exec graph as a picture: edges in, SVG out. Layered from left to right: a program stands right of every program that runs
//! it, as far as there is no circle.

use std::{collections::BTreeMap, fmt::Write as _};

use dna::{Confidence, Dna, Evidence, ImagePath, Run};

use super::escape;

const NODE_WIDTH: usize = 190;
const NODE_HEIGHT: usize = 34;
const COLUMN: usize = 270;
const ROW: usize = 48;
const MARGIN: usize = 12;
/// Programs drawn; the list beside the picture has all.
const MAX_NODES: usize = 80;

/// Draws what the image's own command runs; nothing where it runs nothing.
pub(super) fn draw(dna: &Dna) -> String {
    let runs: BTreeMap<&ImagePath, &[Run]> =
        dna.programs.iter().map(|program| (&program.path, program.runs.as_slice())).collect();
    let starts: Vec<&ImagePath> = dna
        .behavior
        .exec
        .iter()
        .filter(|item| item.evidence.iter().any(|evidence| matches!(evidence, Evidence::Config { .. })))
        .map(|item| &item.what.path)
        .collect();
    let columns = columns(&starts, &runs);
    if columns.is_empty() {
        return String::new();
    }
    let places = places(&columns, &runs);
    let width = places.values().map(|(x, _)| x + NODE_WIDTH).max().unwrap_or(0) + MARGIN;
    let height = places.values().map(|(_, y)| y + NODE_HEIGHT).max().unwrap_or(0) + MARGIN;
    let mut svg = format!(
        "<svg class=graph viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=img aria-label=\"Which program runs which\">\
         <defs><marker id=tip viewBox=\"0 0 8 8\" refX=7 refY=4 markerWidth=7 markerHeight=7 orient=auto><path d=\"M0 0L8 4L0 8z\"/></marker></defs>"
    );
    for (from, (x, y)) in &places {
        for run in runs.get(from).copied().unwrap_or_default() {
            let Some((to_x, to_y)) = places.get(&run.program) else { continue };
            edge(&mut svg, (*x, *y), (*to_x, *to_y), run);
        }
    }
    let sureness: BTreeMap<&ImagePath, Confidence> =
        dna.behavior.exec.iter().map(|item| (&item.what.path, item.confidence)).collect();
    for (path, (x, y)) in &places {
        let class = match sureness.get(path) {
            Some(Confidence::Certain) => "certain",
            Some(Confidence::Likely) => "likely",
            Some(Confidence::Possible) => "possible",
            None => "read",
        };
        let start = if starts.contains(path) { " start" } else { "" };
        let name = String::from_utf8_lossy(path.file_name()).into_owned();
        let name = crate::text::fit(&name, 24);
        let _ = write!(
            svg,
            "<g class=\"node {class}{start}\"><title>{}</title><rect x={x} y={y} width={NODE_WIDTH} height={NODE_HEIGHT} rx=7 />\
             <text x={} y={}>{}</text></g>",
            escape(&path.to_string()),
            x + NODE_WIDTH / 2,
            y + NODE_HEIGHT / 2 + 5,
            escape(&name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Programs by column: the longest way from a start, circles left out.
fn columns<'a>(starts: &[&'a ImagePath], runs: &BTreeMap<&'a ImagePath, &'a [Run]>) -> Vec<Vec<&'a ImagePath>> {
    let mut depth: BTreeMap<&ImagePath, usize> = BTreeMap::new();
    let mut ahead: Vec<(&ImagePath, usize, Vec<&ImagePath>)> =
        starts.iter().map(|start| (*start, 0, Vec::new())).collect();
    let mut steps = 0;
    while let Some((path, column, trail)) = ahead.pop() {
        steps += 1;
        let known = depth.get(path).copied();
        if steps > 4000 || (known.is_none() && depth.len() >= MAX_NODES) || known.is_some_and(|known| known >= column) {
            continue;
        }
        depth.insert(path, column);
        for run in runs.get(path).copied().unwrap_or_default() {
            if run.program != *path && !trail.contains(&&run.program) {
                let mut trail = trail.clone();
                trail.push(path);
                ahead.push((&run.program, column + 1, trail));
            }
        }
    }
    let mut columns: Vec<Vec<&ImagePath>> = Vec::new();
    for (path, column) in depth {
        if columns.len() <= column {
            columns.resize(column + 1, Vec::new());
        }
        if let Some(column) = columns.get_mut(column) {
            column.push(path);
        }
    }
    columns
}

/// Where each program stands: within its column in the order of those that run it, so that few lines cross.
fn places<'a>(
    columns: &[Vec<&'a ImagePath>],
    runs: &BTreeMap<&'a ImagePath, &'a [Run]>,
) -> BTreeMap<&'a ImagePath, (usize, usize)> {
    let mut places: BTreeMap<&ImagePath, (usize, usize)> = BTreeMap::new();
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0);
    for (column, paths) in columns.iter().enumerate() {
        let height_of_parents = |path: &ImagePath| {
            let above: Vec<usize> = places
                .iter()
                .filter(|(from, _)| runs.get(*from).is_some_and(|runs| runs.iter().any(|run| run.program == *path)))
                .map(|(_, (_, y))| *y)
                .collect();
            above.iter().sum::<usize>().checked_div(above.len()).unwrap_or(0)
        };
        let mut paths: Vec<_> = paths.iter().map(|path| (height_of_parents(path), *path)).collect();
        paths.sort();
        let top = (tallest - paths.len()) * ROW / 2;
        let here: Vec<_> = paths
            .into_iter()
            .enumerate()
            .map(|(row, (_, path))| (path, (MARGIN + column * COLUMN, MARGIN + top + row * ROW)))
            .collect();
        places.extend(here);
    }
    places
}

fn edge(svg: &mut String, (x, y): (usize, usize), (to_x, to_y): (usize, usize), run: &Run) {
    let class = match run.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    };
    let middle = NODE_HEIGHT / 2;
    let (from, to) = (y + middle, to_y + middle);
    let path = if to_x > x {
        let (start, end) = (x + NODE_WIDTH, to_x - 2);
        let bend = (start + end) / 2;
        format!("M{start} {from}C{bend} {from} {bend} {to} {end} {to}")
    } else {
        // Back to the left: around below.
        let (start, end) = (x + NODE_WIDTH / 2, to_x + NODE_WIDTH / 2);
        let low = y.max(to_y) + NODE_HEIGHT + 24;
        format!("M{start} {}C{start} {low} {end} {low} {end} {}", y + NODE_HEIGHT, to_y + NODE_HEIGHT + 2)
    };
    let _ = write!(
        svg,
        "<path class=\"edge {class}\" d=\"{path}\" marker-end=\"url(#tip)\"><title>{}</title></path>",
        escape(&run.reason)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_end_and_each_program_stands_once() {
        let path = |text: &str| text.parse::<ImagePath>().expect("a path");
        let run = |to: &str| Run {
            program: path(to),
            called: std::collections::BTreeSet::new(),
            reason: "calls".into(),
            confidence: Confidence::Certain,
            when: vec![],
            evidence: vec![],
        };
        let (a, b) = (path("/a"), path("/b"));
        let (from_a, from_b) = ([run("/b"), run("/a")], [run("/a")]);
        let runs = BTreeMap::from([(&a, &from_a[..]), (&b, &from_b[..])]);
        let columns = columns(&[&a], &runs);
        assert_eq!(columns, [vec![&a], vec![&b]]);
        assert_eq!(places(&columns, &runs).len(), 2);
    }
}
