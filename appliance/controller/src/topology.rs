//! The network that slices are booked on: a graph of directed links, and the tree of a slice in it.
//!
//! The tree is the one of the founding papers: the centre is the inner node with the least sum of
//! path lengths to the members (closeness centrality), the tree is the union of the members'
//! shortest paths to it. Ties go to the lowest name, so that two controllers agree.

use crate::{admission::Share, fabric::Fabric};
use dtn_api::{
    Problem,
    problem::Kind,
    slice::{Member, Mode},
};
use std::collections::{BTreeMap, BTreeSet};

/// A directed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Node it leaves.
    pub from: String,
    /// Node it enters.
    pub to: String,
    /// Bits per second of frames.
    pub capacity_bps: u64,
    /// MTU in bytes.
    pub mtu: u32,
}
impl Link {
    /// `from>to`.
    pub fn name(&self) -> String {
        format!("{}>{}", self.from, self.to)
    }
}

/// A graph of directed links. Leaves carry no transit traffic.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    links: BTreeMap<String, Link>,
    leaves: BTreeSet<String>,
}

/// The links that join a slice's members, both directions of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The node in the middle.
    pub center: String,
    /// Every directed link with the number of members on its near side.
    pub links: Vec<(Link, usize)>,
}

impl Graph {
    /// Adds both directions between two nodes.
    pub fn join(&mut self, a: &str, b: &str, capacity_bps: u64, mtu: u32) {
        for (from, to) in [(a, b), (b, a)] {
            let link = Link {
                from: from.to_owned(),
                to: to.to_owned(),
                capacity_bps,
                mtu,
            };
            self.links.insert(link.name(), link);
        }
    }
    /// Says that a node is an end and not on anybody's way.
    pub fn leaf(&mut self, node: &str) {
        self.leaves.insert(node.to_owned());
    }
    /// Every directed link, in the order of names.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Distance in hops from one node to each that can be reached, with the node before it.
    fn reach(&self, from: &str, usable: &dyn Fn(&Link) -> bool) -> BTreeMap<&str, (usize, &str)> {
        let mut found: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let Some((from, ())) = self
            .links
            .values()
            .find(|link| link.from == from)
            .map(|link| (link.from.as_str(), ()))
        else {
            return found;
        };
        found.insert(from, (0, from));
        let mut front = vec![from];
        let mut hops = 0;
        // every hop costs the same, so the front is Dijkstra's queue
        while !front.is_empty() {
            hops += 1;
            let mut next: BTreeMap<&str, &str> = BTreeMap::new();
            for node in front {
                if node != from && self.leaves.contains(node) {
                    continue;
                }
                for link in self.links.values().filter(|l| l.from == node && usable(l)) {
                    if !found.contains_key(link.to.as_str()) {
                        next.entry(&link.to).or_insert(node);
                    }
                }
            }
            front = next.keys().copied().collect();
            for (node, before) in next {
                found.insert(node, (hops, before));
            }
        }
        found
    }

    /// A path must be usable in both directions: what is sent is also received.
    fn both(&self, link: &Link, usable: &dyn Fn(&Link) -> bool) -> bool {
        let back = self.links.get(&format!("{}>{}", link.to, link.from));
        usable(link) && back.is_some_and(usable)
    }

    /// The shortest way from a leaf to a tree of these links, as names of links in both directions; it
    /// ends at the tree's nearest inner node. `None` when there is none over usable links.
    pub fn way_to(
        &self,
        leaf: &str,
        tree: &BTreeSet<String>,
        usable: &dyn Fn(&Link) -> bool,
    ) -> Option<BTreeSet<String>> {
        let of_tree = tree.iter().filter_map(|name| self.links.get(name));
        let inner: BTreeSet<&str> = of_tree
            .map(|link| link.from.as_str())
            .filter(|node| !self.leaves.contains(*node))
            .collect();
        let reached = self.reach(leaf, &|link| self.both(link, usable));
        let nearest = inner
            .into_iter()
            .filter_map(|node| reached.get(node).map(|(hops, _)| (*hops, node)));
        let (_, mut node) = nearest.min()?;
        let mut way = BTreeSet::new();
        while node != leaf {
            let (_, before) = reached.get(node)?;
            way.extend([format!("{before}>{node}"), format!("{node}>{before}")]);
            node = before;
        }
        Some(way)
    }

    /// The tree that joins these leaves over usable links; `None` when there is none.
    pub fn tree(&self, members: &[String], usable: &dyn Fn(&Link) -> bool) -> Option<Tree> {
        let both = |link: &Link| self.both(link, usable);
        let reached: Vec<_> = members.iter().map(|m| self.reach(m, &both)).collect();
        let inner: BTreeSet<&str> = self
            .links
            .values()
            .map(|link| link.from.as_str())
            .filter(|node| !self.leaves.contains(*node))
            .collect();
        let center = inner
            .into_iter()
            .filter_map(|node| {
                let hops = reached
                    .iter()
                    .map(|from| from.get(node).map(|(hops, _)| *hops));
                let sum: Option<usize> = hops.sum();
                Some((sum?, node))
            })
            .min()
            .map(|(_, node)| node)?;
        let mut near: BTreeMap<String, usize> = BTreeMap::new();
        for (member, from) in members.iter().zip(&reached) {
            let mut node = center;
            while node != member {
                let (_, before) = from.get(node)?;
                *near.entry(format!("{before}>{node}")).or_default() += 1;
                // the way back carries what the others send to this member
                near.entry(format!("{node}>{before}")).or_default();
                node = before;
            }
        }
        let all = members.len();
        let links = near
            .iter()
            .filter_map(|(name, count)| {
                let link = self.links.get(name)?.clone();
                let back = near.get(&format!("{}>{}", link.to, link.from)).copied();
                let count = match count {
                    0 => all - back.unwrap_or(0),
                    count => *count,
                };
                Some((link, count))
            })
            .collect();
        Some(Tree {
            center: center.to_owned(),
            links,
        })
    }
}

/// What a slice takes of every link on its tree.
///
/// `usable` filters links (those that admit the rate). Where no tree is left with it, the tree of
/// the whole graph is taken, so that admission can name the link and the number.
pub fn shares(
    fabric: &dyn Fabric,
    graph: &Graph,
    mode: Mode,
    members: &[Member],
    usable: &dyn Fn(&Link) -> bool,
) -> Result<(Vec<Share>, u32), Problem> {
    let nodes: Vec<String> = members.iter().filter_map(|m| fabric.node(m)).collect();
    let all = nodes.len() as u64;
    let tree = graph
        .tree(&nodes, usable)
        .or_else(|| graph.tree(&nodes, &|_| true))
        .ok_or_else(|| {
            Problem::new(
                Kind::NoPath,
                format!(
                    "no path joins {}: see which hosts are declared and which border links are \
                     configured (GET /topology)",
                    nodes.join(" and ")
                ),
            )
        })?;
    let mtu = tree.links.iter().map(|(link, _)| link.mtu).min();
    let shares = tree
        .links
        .into_iter()
        .map(|(link, near)| Share {
            link: link.name(),
            capacity_bps: link.capacity_bps,
            times: match mode {
                Mode::Pair | Mode::Aggregate => 1,
                // what the smaller side can send or take
                Mode::Hose => (near as u64).min(all - near as u64).max(1),
            },
        })
        .collect();
    Ok((shares, mtu.unwrap_or(1500)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Graph {
        // three leaves on a ring of four switches
        let mut graph = Graph::default();
        for (a, b) in [("s1", "s2"), ("s2", "s3"), ("s3", "s4"), ("s4", "s1")] {
            graph.join(a, b, 1000, 9000);
        }
        for (leaf, switch) in [("a", "s1"), ("b", "s2"), ("c", "s3")] {
            graph.join(leaf, switch, 100, 1500);
            graph.leaf(leaf);
        }
        graph
    }

    #[test]
    fn the_center_is_closest_to_all_members() {
        let members = ["a", "b", "c"].map(str::to_owned);
        let tree = ring().tree(&members, &|_| true).unwrap();
        assert_eq!(tree.center, "s2");
        let names: Vec<String> = tree
            .links
            .iter()
            .map(|(l, n)| format!("{}={n}", l.name()))
            .collect();
        assert_eq!(
            names,
            [
                "a>s1=1", "b>s2=1", "c>s3=1", "s1>a=2", "s1>s2=1", "s2>b=2", "s2>s1=2", "s2>s3=2",
                "s3>c=2", "s3>s2=1"
            ]
        );
    }

    #[test]
    fn a_full_link_is_gone_around_in_both_directions() {
        let members = ["a", "b"].map(str::to_owned);
        let tree = ring()
            .tree(&members, &|link| link.name() != "s2>s1")
            .unwrap();
        assert!(
            tree.links.iter().any(|(l, _)| l.name() == "s4>s1"),
            "{tree:?}"
        );
        assert!(
            ring()
                .tree(&members, &|link| link.name() != "a>s1")
                .is_none()
        );
        // a leaf is nobody's way
        let mut graph = Graph::default();
        for (a, b) in [("x", "m"), ("m", "y")] {
            graph.join(a, b, 1, 1500);
        }
        for leaf in ["x", "m", "y"] {
            graph.leaf(leaf);
        }
        assert!(graph.tree(&["x".into(), "y".into()], &|_| true).is_none());
    }

    #[test]
    fn who_comes_later_is_led_to_the_tree_that_there_is() {
        let graph = ring();
        // s1 and s3 were joined by s4 when there was no room on s2
        let tree = graph
            .tree(&["a".into(), "c".into()], &|link| {
                !link.name().contains("s2")
            })
            .unwrap();
        let had: BTreeSet<String> = tree.links.iter().map(|(link, _)| link.name()).collect();
        assert!(had.contains("s4>s1"), "{had:?}");
        let way = graph.way_to("b", &had, &|_| true).unwrap();
        let names: Vec<&str> = way.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            ["b>s2", "s1>s2", "s2>b", "s2>s1"],
            "to the first of equals"
        );
        let members = ["a", "b", "c"].map(str::to_owned);
        let over = |link: &Link| had.contains(&link.name()) || way.contains(&link.name());
        let all: BTreeSet<String> = graph
            .tree(&members, &over)
            .unwrap()
            .links
            .iter()
            .map(|(l, _)| l.name())
            .collect();
        assert!(had.iter().all(|link| all.contains(link)), "{all:?}");
        assert_eq!(graph.way_to("b", &had, &|link| link.from != "b"), None);
    }

    #[test]
    fn an_unknown_member_has_no_path() {
        assert!(ring().tree(&["a".into(), "zz".into()], &|_| true).is_none());
    }
}
