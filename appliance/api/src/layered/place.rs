//! One layer with its text, and where in it a field stands. Lines are found in the text itself,
//! since the merged values do not know them any more.

use super::problem::{ConfigProblem, Severity};
use toml_edit::{ImDocument, Item, Value};

/// Whose layer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// The maker's defaults: they make no host a DTN.
    Makers,
    /// The admin's.
    Own,
}

/// A layer that could be parsed.
pub(super) struct Layer {
    /// Its name for people.
    pub(super) shown: String,
    /// Whose it is.
    pub(super) rank: Rank,
    document: ImDocument<String>,
}

/// A file and a line of it.
pub(super) type Spot = (String, Option<usize>);

impl Layer {
    pub(super) fn parse(shown: String, text: String, rank: Rank) -> Result<Self, ConfigProblem> {
        match ImDocument::parse(text.clone()) {
            Ok(document) => Ok(Self {
                shown,
                rank,
                document,
            }),
            Err(e) => {
                let at = e.span().map(|span| span.start.min(text.len()));
                let line = at.map(|at| line_of(&text, at));
                let column = at.map(|at| {
                    let start = text[..at].rfind('\n').map_or(0, |before| before + 1);
                    text[start..at].chars().count() + 1
                });
                let place = column.map_or(String::new(), |n| format!("column {n}: "));
                let why = e.message().trim_end().replace('\n', ", ");
                Err(ConfigProblem {
                    path: String::new(),
                    why: format!("not TOML: {place}{why}"),
                    file: Some(shown),
                    line,
                    severity: Severity::Error,
                })
            }
        }
    }
    pub(super) fn text(&self) -> &str {
        self.document.raw()
    }
    /// Whether it has this table or key at its top.
    pub(super) fn has(&self, key: &str) -> bool {
        self.document.as_table().contains_key(key)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// A value in a layer.
#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Value(&'a Value),
    Table(&'a toml_edit::Table),
}
impl<'a> Node<'a> {
    fn get(self, key: &str) -> Option<Self> {
        match self {
            Self::Item(item) => item.get(key).map(Self::Item),
            Self::Value(value) => value.as_inline_table()?.get(key).map(Self::Value),
            Self::Table(table) => table.get(key).map(Self::Item),
        }
    }
    fn length(self) -> Option<usize> {
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => Some(tables.len()),
            Self::Item(Item::Value(Value::Array(values))) | Self::Value(Value::Array(values)) => {
                Some(values.len())
            }
            _ => None,
        }
    }
    fn at(self, index: usize) -> Option<Self> {
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => tables.get(index).map(Self::Table),
            Self::Item(Item::Value(Value::Array(values))) | Self::Value(Value::Array(values)) => {
                values.get(index).map(Self::Value)
            }
            _ => None,
        }
    }
    fn is_table(self) -> bool {
        match self {
            Self::Item(item) => item.is_table_like(),
            Self::Value(value) => value.is_inline_table(),
            Self::Table(_) => true,
        }
    }
    fn start(self) -> Option<usize> {
        let span = match self {
            Self::Item(item) => item.span(),
            Self::Value(value) => value.span(),
            Self::Table(table) => table.span(),
        };
        span.map(|span| span.start)
    }
}

/// Where a field stands, `nic[1].speed` counted over all layers; of a missing one, where the table
/// is that it should be in.
pub(super) fn locate(layers: &[Layer], path: &str) -> Option<Spot> {
    let mut path = path;
    while !path.is_empty() {
        if let Some((layer, node)) = find(layers, path) {
            let line = node.start().map(|at| line_of(layer.text(), at));
            return Some((layer.shown.clone(), line));
        }
        path = match (path.rfind('['), path.rfind('.')) {
            (Some(index), dot) if dot.is_none_or(|dot| dot < index) => &path[..index],
            (_, Some(dot)) => &path[..dot],
            _ => "",
        };
    }
    None
}

/// The value as merging leaves it: of scalars the last, lists one after the other.
fn find<'a>(layers: &'a [Layer], path: &str) -> Option<(&'a Layer, Node<'a>)> {
    let mut found: Vec<(&Layer, Node<'_>)> = layers
        .iter()
        .map(|layer| (layer, Node::Table(layer.document.as_table())))
        .collect();
    for part in path.split('.') {
        let (key, index) = match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
            Some((key, index)) => (key, Some(index.parse::<usize>().ok()?)),
            None => (part, None),
        };
        found = found
            .into_iter()
            .filter_map(|(layer, node)| Some((layer, node.get(key)?)))
            .collect();
        merge(&mut found);
        if let Some(mut index) = index {
            let (layer, item) = found.into_iter().find_map(|(layer, node)| {
                let length = node.length()?;
                if index < length {
                    return Some((layer, node.at(index)?));
                }
                index -= length;
                None
            })?;
            found = vec![(layer, item)];
        }
    }
    // a table stands where the admin wrote most of it: the first that is theirs
    let tables = found.iter().all(|(_, node)| node.is_table());
    match tables {
        true => found
            .iter()
            .find(|(layer, _)| layer.rank == Rank::Own)
            .or(found.first())
            .copied(),
        false => found.last().copied(),
    }
}

/// Drops what a later layer replaces: only tables and lists go together with what was before.
fn merge(found: &mut Vec<(&Layer, Node<'_>)>) {
    let kind = |node: &Node<'_>| (node.is_table(), node.length().is_some());
    let Some(last) = found.last().map(|(_, node)| kind(node)) else {
        return;
    };
    let keep = match last {
        (false, false) => 1,
        _ => found
            .iter()
            .rev()
            .take_while(|(_, node)| kind(node) == last)
            .count(),
    };
    found.drain(..found.len() - keep);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_layer_that_wins() {
        let layer = |name: &str, text: &str| {
            Layer::parse(name.into(), text.into(), Rank::Own)
                .unwrap_or_else(|problem| panic!("{problem}"))
        };
        let layers = [
            layer(
                "a",
                "version = 1\n[log]\nlevel = \"info\"\n[[nic]]\nname = \"x\"\n",
            ),
            layer(
                "b",
                "\n[[nic]]\nname = \"y\"\n[log]\nlevel = 3\n[g]\nnets = [\n \"1\",\n \"2\"]\n",
            ),
        ];
        let at = |path: &str| locate(&layers, path).map(|(file, line)| (file, line.unwrap_or(0)));
        for (path, file, line) in [
            ("version", "a", 1),
            ("log.level", "b", 5),
            ("log.none", "a", 2),
            ("nic[0].name", "a", 5),
            ("nic[1].name", "b", 3),
            ("nic[1].class", "b", 2),
            ("g.nets[1]", "b", 9),
            ("g.nets[7]", "b", 7),
        ] {
            assert_eq!(at(path), Some((file.into(), line)), "{path}");
        }
        assert_eq!(at("none"), None);
    }
}
