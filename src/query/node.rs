//! A filter on its way to a table: a tree, made as small as it gets.
//!
//! A test of a column takes time by the number of rows. So conditions that are one test are put
//! together: `a = 1 or a = 2 or …` looks into one set, however many there are.

use super::test::{Among, Test};
use crate::schema::Attribute;

/// A step of a filter, which is evaluated in postfix order.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Everything,
    Nothing,
    Test {
        attribute: Attribute,
        test: Test,
        is_for_lists: bool,
    },
    /// Rows without a value.
    Null(Attribute),
    Not,
    /// Of two.
    And,
    Or,
}

#[derive(Debug)]
pub(super) enum Node {
    Everything,
    Nothing,
    Test {
        attribute: Attribute,
        test: Test,
        is_for_lists: bool,
    },
    Null(Attribute),
    Not(Box<Node>),
    /// Of at least two, none of which is another of these; and the number of their tests.
    All(Vec<Node>, usize),
    /// The same.
    Any(Vec<Node>, usize),
}

impl Node {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Everything => Self::Nothing,
            Self::Nothing => Self::Everything,
            Self::Not(node) => *node,
            node => Self::Not(Box::new(node)),
        }
    }

    pub(super) fn all(parts: Vec<Self>) -> Self {
        let mut nodes = Vec::with_capacity(parts.len());
        let mut refused = Vec::new();
        for part in parts {
            match part {
                Self::Everything => {}
                Self::Nothing => return Self::Nothing,
                Self::All(parts, _) => nodes.extend(parts),
                Self::Not(part) => refused.push(*part),
                part => nodes.push(part),
            }
        }
        // All are refused where any of them would pass.
        match Self::any(refused) {
            Self::Nothing => {}
            refused => nodes.push(refused.not()),
        }
        let mut nodes = together(nodes, true);
        let cost = nodes.iter().map(Self::cost).sum();
        match nodes.len() {
            0 => Self::Everything,
            1 => nodes.swap_remove(0),
            _ => Self::All(nodes, cost),
        }
    }

    /// Of none: nothing.
    pub(super) fn any(parts: Vec<Self>) -> Self {
        let mut nodes = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Everything => return Self::Everything,
                Self::Nothing => {}
                Self::Any(parts, _) => nodes.extend(parts),
                part => nodes.push(part),
            }
        }
        let mut nodes = together(nodes, false);
        let cost = nodes.iter().map(Self::cost).sum();
        match nodes.len() {
            0 => Self::Nothing,
            1 => nodes.swap_remove(0),
            _ => Self::Any(nodes, cost),
        }
    }

    /// The number of tests.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Everything | Self::Nothing => 0,
            Self::Test { .. } | Self::Null(_) => 1,
            Self::Not(node) => node.cost(),
            Self::All(_, cost) | Self::Any(_, cost) => *cost,
        }
    }

    /// In postfix order. No recursion: filters may nest deeper than the stack.
    pub(super) fn into_steps(self) -> Vec<Step> {
        enum Todo {
            Node(Node),
            Step(Step),
        }
        fn joined(nodes: Vec<Node>, step: fn() -> Step) -> impl Iterator<Item = Todo> {
            nodes.into_iter().enumerate().rev().flat_map(move |(at, node)| {
                (at > 0).then(|| Todo::Step(step())).into_iter().chain([Todo::Node(node)])
            })
        }
        let mut steps = Vec::new();
        let mut todo = vec![Todo::Node(self)];
        while let Some(next) = todo.pop() {
            match next {
                Todo::Step(step) => steps.push(step),
                Todo::Node(Self::Everything) => steps.push(Step::Everything),
                Todo::Node(Self::Nothing) => steps.push(Step::Nothing),
                Todo::Node(Self::Test { attribute, test, is_for_lists }) => {
                    steps.push(Step::Test { attribute, test, is_for_lists });
                }
                Todo::Node(Self::Null(attribute)) => steps.push(Step::Null(attribute)),
                Todo::Node(Self::Not(node)) => {
                    todo.extend([Todo::Step(Step::Not), Todo::Node(*node)]);
                }
                Todo::Node(Self::All(nodes, _)) => todo.extend(joined(nodes, || Step::And)),
                Todo::Node(Self::Any(nodes, _)) => todo.extend(joined(nodes, || Step::Or)),
            }
        }
        steps
    }
}

/// The nodes, with those sets of one attribute put together that are united by an `or` or, where
/// they are `negated`, by an `and`.
fn together(nodes: Vec<Node>, negated: bool) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut sets: Vec<(Attribute, bool, Vec<Among>)> = Vec::new();
    for node in nodes {
        match node {
            Node::Test { attribute, test: Test::Among(among), is_for_lists }
                if among.is_negated() == negated =>
            {
                let known = sets
                    .iter_mut()
                    .find(|(of, lists, _)| (of, *lists) == (&attribute, is_for_lists));
                match known {
                    Some((_, _, amongs)) => amongs.push(among),
                    None => sets.push((attribute, is_for_lists, vec![among])),
                }
            }
            node => kept.push(node),
        }
    }
    kept.extend(sets.into_iter().map(|(attribute, is_for_lists, amongs)| {
        let test = Test::Among(Among::union(amongs));
        Node::Test { attribute, test, is_for_lists }
    }));
    kept
}
