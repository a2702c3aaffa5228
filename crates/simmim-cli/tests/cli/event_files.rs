//! The TensorBoard events of a run as TensorBoard reads them: the files in the order of their names, and whatever a later
//! process does again only once (tensorflow/tensorboard, `backend/event_processing/event_accumulator.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The steps of each tag, in the order in which they were recorded.
pub(crate) fn steps_by_tag(run: &Path) -> BTreeMap<String, Vec<u64>> {
    let entries = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_str().unwrap().contains("events.out.tfevents")).collect();
    files.sort();
    let mut kept: Vec<(String, u64)> = Vec::new();
    for bytes in files.iter().map(|file| fs::read(file).unwrap()) {
        let mut rest = bytes.as_slice();
        // a killed process may leave half a record
        while let Some(payload) = next_record(&mut rest) {
            let fields = fields(payload);
            let step = fields.iter().find(|(number, _)| *number == 2).map_or(0, |(_, value)| value.number());
            for (number, value) in &fields {
                match number {
                    // a session begins, and what it may do again is dropped
                    7 => kept.retain(|(_, other)| *other < step),
                    5 => kept.extend(tags(value.bytes()).into_iter().map(|tag| (tag, step))),
                    _ => {}
                }
            }
        }
    }
    let mut by_tag: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    kept.into_iter().for_each(|(tag, step)| by_tag.entry(tag).or_default().push(step));
    by_tag
}

/// The payload of the next whole record: its length, a checksum, the payload, and its checksum.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(*rest.first_chunk()?) as usize;
    let payload = rest.get(12..12 + length)?;
    *rest = rest.get(16 + length..)?;
    Some(payload)
}

/// The tags of a summary.
fn tags(summary: &[u8]) -> Vec<String> {
    let of_value = |(_, value): &(u64, Field)| {
        let fields = fields(value.bytes());
        let (_, tag) = fields.iter().find(|(number, _)| *number == 1).unwrap();
        String::from_utf8(tag.bytes().to_vec()).unwrap()
    };
    fields(summary).iter().map(of_value).collect()
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(_) => panic!("a step is a number"),
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            Field::Number(_) => panic!("a message is bytes"),
        }
    }
}

/// The fields of a protobuf message, by their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Field::Number(varint(&mut message))));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("no field is of type {other}"),
        };
        let (bytes, rest) = message.split_at(length);
        fields.push((key >> 3, Field::Bytes(bytes)));
        message = rest;
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let (first, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(first & 0x7f) << (7 * place);
        if *first < 0x80 {
            break;
        }
    }
    value
}
