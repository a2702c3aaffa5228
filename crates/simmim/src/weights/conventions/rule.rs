//! Two-way rules between the names and layouts of a convention's tensors and ours.

use crate::error::Result;
use std::collections::BTreeMap;

/// A rule of a convention. Each holds in both directions.
///
/// Names are patterns, compared between dots: `{}` stands for a number, `{next}` for one that is greater by 1 than ours,
/// and `*` for `weight` or `bias`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// The same tensor under another name: ours, theirs.
    Name(&'static str, &'static str),
    /// The same rows when the tensors of each side are concatenated along the first dimension: ours, theirs. The
    /// tensors of a side are of equal size.
    Rows(&'static [Part], &'static [Part]),
}

/// A part of a concatenation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// A tensor.
    Tensor(&'static str),
    /// Rows that this side does not have: left out when they come from the other side, zeros when they go there.
    Absent,
}

/// Which side of the rules the given tensors are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// They are ours.
    Ours,
    /// They are the convention's.
    Theirs,
}

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// What the rules made of some tensors.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The tensors of the other side.
    pub(super) tensors: Vec<NamedTensor>,
    /// Names that no rule is for.
    pub(super) unknown: Vec<String>,
    /// Tensors that a rule needs and that are not there.
    pub(super) missing: Vec<String>,
    /// Tensors whose shapes do not go together, with the reason.
    pub(super) unequal: Vec<String>,
    /// Whether rows were left out because the other side does not have them.
    pub(super) leaves_rows_out: bool,
}

/// Translates tensors to the other side, reading one rule's at a time by `read`.
///
/// # Errors
/// Those of `read`.
pub(super) fn convert(
    rules: &[&[Rule]],
    from: From,
    names: &[String],
    mut read: impl FnMut(&str) -> Result<(Vec<usize>, Vec<f32>)>,
) -> Result<Converted> {
    let rules: Vec<&Rule> = rules.iter().copied().flatten().collect();
    let mut converted = Converted::default();
    let mut uses: BTreeMap<(usize, Vec<usize>, Option<&'static str>), ()> = BTreeMap::new();
    for name in names {
        let found = rules.iter().enumerate().find_map(|(i, rule)| {
            let (given, _) = rule.sides(from);
            let matching = given.iter().find_map(|part| Wild::of(part.name()?, name))?;
            Some((i, matching))
        });
        match found {
            Some((i, wild)) => drop(uses.insert((i, wild.numbers, wild.kind), ())),
            None => converted.unknown.push(name.clone()),
        }
    }
    for (i, numbers, kind) in uses.into_keys() {
        let (wild, (given, wanted)) = (Wild { numbers, kind }, rules[i].sides(from));
        let name = |part: &Part| part.name().and_then(|pattern| wild.fill(pattern));
        let needed: Vec<String> = given.iter().filter_map(name).collect();
        let absent: Vec<&String> = needed.iter().filter(|name| !names.contains(name)).collect();
        if !absent.is_empty() {
            converted.missing.extend(absent.into_iter().cloned());
            continue;
        }
        let mut read_parts = Vec::new();
        for name in &needed {
            read_parts.push(read(name)?);
        }
        let (shape, size) = (read_parts[0].0.clone(), read_parts[0].1.len());
        if read_parts.iter().any(|(other, _)| *other != shape) {
            converted.unequal.push(format!("{} have the shapes {:?}", needed.join(", "), shapes(&read_parts)));
            continue;
        }
        let mut rows = Vec::new();
        let mut parts = read_parts.into_iter();
        for part in &given {
            match part {
                Part::Tensor(_) => rows.extend(parts.next().expect("every tensor was read").1),
                Part::Absent => rows.resize(rows.len() + size, 0.0),
            }
        }
        let first = shape.first().map_or(given.len(), |rows| rows * given.len());
        if !first.is_multiple_of(wanted.len()) {
            converted.unequal.push(format!(
                "{} has the shape {shape:?}, which is not {} parts",
                needed[0],
                wanted.len()
            ));
            continue;
        }
        let mut of_part = shape.clone();
        if let Some(rows) = of_part.first_mut() {
            *rows = first / wanted.len();
        }
        let len = rows.len() / wanted.len();
        for (i, part) in wanted.iter().enumerate() {
            match name(part) {
                Some(name) => {
                    let values = rows[i * len..(i + 1) * len].to_vec();
                    converted.tensors.push(NamedTensor { name, shape: of_part.clone(), values });
                }
                None => converted.leaves_rows_out = true,
            }
        }
    }
    Ok(converted)
}

fn shapes(tensors: &[(Vec<usize>, Vec<f32>)]) -> Vec<&[usize]> {
    tensors.iter().map(|(shape, _)| shape.as_slice()).collect()
}

impl Part {
    fn name(&self) -> Option<&'static str> {
        match self {
            Part::Tensor(name) => Some(name),
            Part::Absent => None,
        }
    }
}

impl Rule {
    /// The parts that are given, and those that are wanted.
    fn sides(&self, from: From) -> (Vec<Part>, Vec<Part>) {
        let (ours, theirs) = match self {
            Rule::Name(ours, theirs) => (vec![Part::Tensor(ours)], vec![Part::Tensor(theirs)]),
            Rule::Rows(ours, theirs) => (ours.to_vec(), theirs.to_vec()),
        };
        match from {
            From::Ours => (ours, theirs),
            From::Theirs => (theirs, ours),
        }
    }
}

/// What the wild parts of a pattern stand for; numbers are ours.
struct Wild {
    numbers: Vec<usize>,
    kind: Option<&'static str>,
}

impl Wild {
    /// Matches a name with a pattern.
    fn of(pattern: &str, name: &str) -> Option<Self> {
        let (mut parts, mut wild) = (name.split('.'), Self { numbers: Vec::new(), kind: None });
        for expected in pattern.split('.') {
            let part = parts.next()?;
            match expected {
                "{}" => wild.numbers.push(part.parse().ok()?),
                "{next}" => wild.numbers.push(part.parse::<usize>().ok()?.checked_sub(1)?),
                "*" => wild.kind = Some(["weight", "bias"].into_iter().find(|kind| *kind == part)?),
                literal if literal == part => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some(wild)
    }

    /// The name that a pattern stands for; `None` if it has more wild parts.
    fn fill(&self, pattern: &str) -> Option<String> {
        let mut numbers = self.numbers.iter();
        let filled: Option<Vec<String>> = pattern
            .split('.')
            .map(|part| match part {
                "{}" => numbers.next().map(ToString::to_string),
                "{next}" => numbers.next().map(|number| (number + 1).to_string()),
                "*" => self.kind.map(str::to_owned),
                literal => Some(literal.to_owned()),
            })
            .collect();
        Some(filled?.join("."))
    }
}

/// Whether a name fits a pattern.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    Wild::of(pattern, name).is_some()
}

/// The name under which a pattern of another name is known; `None` if it is another name.
pub(super) fn renamed(from: &str, to: &str, name: &str) -> Option<String> {
    Wild::of(from, name)?.fill(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &[Rule] = &[
        Rule::Name("a.{}.*", "b.{}.c.*"),
        Rule::Name("down.{}.weight", "up.{next}.weight"),
        Rule::Rows(&[Part::Tensor("q.{}"), Part::Absent, Part::Tensor("v.{}")], &[Part::Tensor("qkv.{}")]),
    ];

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        NamedTensor { name: name.into(), shape: shape.to_vec(), values: values.to_vec() }
    }

    fn run(from: From, tensors: &[NamedTensor]) -> Converted {
        let names: Vec<String> = tensors.iter().map(|t| t.name.clone()).collect();
        let read = |name: &str| {
            let found = tensors.iter().find(|t| t.name == name).unwrap();
            Ok((found.shape.clone(), found.values.clone()))
        };
        convert(&[RULES], from, &names, read).unwrap()
    }

    #[test]
    fn rules_hold_in_both_directions() {
        let ours = [
            tensor("a.11.weight", &[1, 2], &[1.0, 2.0]),
            tensor("down.0.weight", &[1], &[3.0]),
            tensor("q.4", &[2], &[4.0, 5.0]),
            tensor("v.4", &[2], &[6.0, 7.0]),
        ];
        let theirs = [
            tensor("b.11.c.weight", &[1, 2], &[1.0, 2.0]),
            tensor("up.1.weight", &[1], &[3.0]),
            tensor("qkv.4", &[6], &[4.0, 5.0, 0.0, 0.0, 6.0, 7.0]),
        ];
        let there = run(From::Ours, &ours);
        assert_eq!(there.tensors, theirs);
        assert!(!there.leaves_rows_out);
        let back = run(From::Theirs, &theirs);
        assert_eq!(back.tensors, ours);
        assert!(back.leaves_rows_out, "the rows of keys are left out");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let found = run(From::Theirs, &[tensor("x", &[1], &[0.0]), tensor("qkv.0", &[4], &[0.0; 4])]);
        assert_eq!(found.unknown, ["x"]);
        assert!(found.unequal[0].contains("qkv.0 has the shape [4]"), "{:?}", found.unequal);
        let found = run(From::Ours, &[tensor("q.0", &[1], &[0.0])]);
        assert_eq!(found.missing, ["v.0"]);
        let found = run(From::Ours, &[tensor("q.0", &[1], &[0.0]), tensor("v.0", &[2], &[0.0; 2])]);
        assert!(found.unequal[0].contains("[1], [2]"), "{:?}", found.unequal);
        assert_eq!(run(From::Theirs, &[tensor("up.0.weight", &[1], &[0.0])]).unknown, ["up.0.weight"]);
    }
}
