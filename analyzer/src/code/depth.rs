//! How deep in the C library a call lies: the steps from a function that other files ask it for to the code that calls the
//! kernel. A wrapper of one call is shallow; what only a resolver's fallback does lies deep, however near its caller is.

use std::collections::VecDeque;

use super::{
    link::{Place, Process, Reached},
    module::{Edge, Module},
};

/// Steps inside the C library, by file and node; none where nothing leads there.
#[derive(Debug, Default)]
pub(crate) struct Depths {
    /// From what the program's own code asks for.
    program: Vec<Vec<Option<u16>>>,
    /// From what the code of any file outside the C library asks for.
    any: Vec<Vec<Option<u16>>>,
}

impl Depths {
    /// Measures the reached code of a process.
    pub(crate) fn of(process: &Process, reached: &Reached) -> Self {
        Self { program: measure(process, reached, |index| index == 0), any: measure(process, reached, |_| true) }
    }

    /// The depth of a node below what the program asks for, and below what any file asks for.
    pub(crate) fn at(&self, place: Place) -> (Option<u16>, Option<u16>) {
        let get = |depths: &[Vec<Option<u16>>]| depths.get(place.0)?.get(place.1 as usize).copied().flatten();
        (get(&self.program), get(&self.any))
    }
}

/// This file is (part of) the C library: it starts programs or threads.
pub(crate) fn is_c_library(module: &Module) -> bool {
    ["__libc_start_main", "__pthread_initialize_minimal", "_rtld_global", "_dlstart"]
        .iter()
        .any(|name| module.exports.contains_key(*name))
}

fn measure(process: &Process, reached: &Reached, is_source: impl Fn(usize) -> bool) -> Vec<Vec<Option<u16>>> {
    let inside: Vec<bool> = process.modules.iter().map(|module| is_c_library(module)).collect();
    let is_inside = |index: usize| inside.get(index).copied().unwrap_or_default();
    let mut depths: Vec<Vec<Option<u16>>> = process
        .modules
        .iter()
        .enumerate()
        .map(|(index, module)| if is_inside(index) { vec![None; module.edges.len()] } else { Vec::new() })
        .collect();
    let mut ahead = VecDeque::new();
    let mut visit = |ahead: &mut VecDeque<(Place, u16)>, place: Place, depth: u16| {
        let slot = depths.get_mut(place.0).and_then(|nodes| nodes.get_mut(place.1 as usize));
        if let Some(slot) = slot
            && slot.is_none()
            && reached.step(place).is_some()
        {
            *slot = Some(depth);
            ahead.push_back((place, depth));
        }
    };
    let outside = process.modules.iter().enumerate().filter(|(index, _)| !is_inside(*index) && is_source(*index));
    for (index, module) in outside {
        for (node, edges) in module.edges.iter().enumerate() {
            let Ok(node) = u32::try_from(node) else { continue };
            if reached.step((index, node)).is_none() {
                continue;
            }
            for edge in edges {
                if let Edge::Import(name) | Edge::PointsImport(name) = edge {
                    process.imported(index, *name).for_each(|place| visit(&mut ahead, place, 0));
                }
            }
        }
    }
    while let Some((place, depth)) = ahead.pop_front() {
        let edges = process.modules.get(place.0).and_then(|module| module.edges.get(place.1 as usize));
        let deeper = depth.saturating_add(1);
        for edge in edges.into_iter().flatten() {
            match *edge {
                Edge::Call(node) | Edge::Take(node) | Edge::Points(node) => {
                    visit(&mut ahead, (place.0, node), deeper);
                }
                Edge::Data(node) => visit(&mut ahead, (place.0, node), deeper),
                Edge::Import(name) | Edge::PointsImport(name) => {
                    process.imported(place.0, name).for_each(|place| visit(&mut ahead, place, deeper));
                }
            }
        }
    }
    depths
}
