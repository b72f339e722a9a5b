//! Attributes of XML elements: a text in, a setting `Server.Service.Connector.port` for each attribute out. Entities other than
//! variables are left as written; text between elements is not read.

use super::{MAX_DEPTH, MAX_SETTINGS, Setting, join, name_of};

pub(super) fn read(text: &str) -> Vec<Setting> {
    let (mut settings, mut sections, mut line) = (Vec::new(), Vec::<String>::new(), 1u32);
    let newlines = |text: &str| u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        line = line.saturating_add(newlines(before));
        let end = if after.starts_with("!--") { "-->" } else { ">" };
        let Some((tag, after)) = after.split_once(end) else { break };
        rest = after;
        if settings.len() >= MAX_SETTINGS || sections.len() > MAX_DEPTH {
            break;
        }
        if tag.starts_with('/') {
            sections.pop();
        } else if !tag.starts_with(['!', '?']) {
            let body = tag.trim_end_matches('/');
            let name = body.split_whitespace().next().unwrap_or_default().to_owned();
            let (path, depth) = (join(&sections, &name), sections.len());
            settings.push(Setting { path, words: Vec::new(), line, depth, opens: true });
            sections.push(name_of(&name));
            for (key, value, offset) in attributes(body) {
                let at = line.saturating_add(newlines(body.get(..offset).unwrap_or_default()));
                let (path, words, depth) = (join(&sections, key), vec![value.to_owned()], sections.len());
                settings.push(Setting { path, words, line: at, depth, opens: false });
            }
            if tag.ends_with('/') {
                sections.pop();
            }
        }
        line = line.saturating_add(newlines(tag));
    }
    settings
}

/// Name, value and place of each `name="value"`.
fn attributes(body: &str) -> Vec<(&str, &str, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((name, value)) = body.get(at..).and_then(|rest| rest.split_once('=')) {
        let start = value.trim_start();
        let Some(quote) = start.chars().next().filter(|c| matches!(c, '"' | '\'')) else { break };
        let Some((value, rest)) = start.get(1..).and_then(|value| value.split_once(quote)) else { break };
        let key = name.split_whitespace().next_back().unwrap_or_default();
        found.push((key, value, body.len().saturating_sub(rest.len())));
        at = body.len().saturating_sub(rest.len());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, lines_of};

    #[test]
    fn attributes_have_the_path_of_their_element() {
        let text = "<?xml version='1.0'?>\n<Server port=\"8005\">\n<!-- <Connector port=\"1\"/> -->\n<Service name=\"x\">\n<Connector\n  port='${http.port}' protocol=\"a\"/>\n</Service></Server>";
        assert_eq!(
            lines_of(text, Syntax::Xml),
            [
                "2 Server",
                "2 Server.port 8005",
                "4 Server.Service",
                "4 Server.Service.name x",
                "5 Server.Service.Connector",
                "6 Server.Service.Connector.port ${http.port}",
                "6 Server.Service.Connector.protocol a"
            ]
        );
    }
}
