//! Behavior that several steps found: lists of items in, one list for each dimension out, every thing once, the surest item of it.

use dna::{Behavior, Known};

use crate::scripts::Findings;

/// Adds what scripts do to what is known otherwise.
pub(crate) fn merge<'a>(behavior: &mut Behavior, findings: impl Iterator<Item = &'a Findings>) {
    for findings in findings {
        behavior.listen.extend(findings.listen.iter().cloned());
        behavior.connect.extend(findings.connect.iter().cloned());
        behavior.write.extend(findings.write.iter().cloned());
    }
    // A port that is only claimed is no news where a program is seen to open it.
    let seen: Vec<_> = behavior.listen.iter().filter(|item| !item.what.claimed).map(port).collect();
    behavior.listen.retain(|item| !item.what.claimed || !seen.contains(&port(item)));
    settle(&mut behavior.listen);
    settle(&mut behavior.connect);
    settle(&mut behavior.write);
}

fn port(item: &Known<dna::Listen>) -> (dna::Protocol, u16) {
    (item.what.protocol, item.what.port)
}

fn settle<T: Ord>(items: &mut Vec<Known<T>>) {
    items.sort();
    items.dedup_by(|next, kept| next.what == kept.what);
}

#[cfg(test)]
mod tests {
    use dna::{Confidence, Evidence, Listen, Protocol};

    use super::*;

    #[test]
    fn the_surest_item_stays_and_a_claim_gives_way_to_what_is_seen() {
        let item = |port, claimed, confidence| Known {
            what: Listen { protocol: Protocol::Tcp, port, address: None, claimed },
            confidence,
            when: Vec::new(),
            evidence: vec![Evidence::Config { key: "x".to_owned() }],
        };
        let listen = vec![item(80, true, Confidence::Possible), item(81, true, Confidence::Possible)];
        let mut behavior = Behavior { listen, ..Behavior::default() };
        let found = |confidence| Findings { listen: vec![item(80, false, confidence)], ..Findings::default() };
        merge(&mut behavior, [found(Confidence::Possible), found(Confidence::Likely)].iter());
        assert_eq!(behavior.listen, [item(80, false, Confidence::Likely), item(81, true, Confidence::Possible)]);
    }
}
