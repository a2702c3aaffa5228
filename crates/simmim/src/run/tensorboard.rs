//! TensorBoard event files: scalars and pictures by step.
//!
//! The format is a few fields of two protobuf messages (`tensorflow/core/util/event.proto`,
//! `tensorflow/core/framework/summary.proto`) in TFRecord frames, so it is written here. The crate `tensorboard-rs`
//! would panic in a background thread on a full disk, and depends on old, unmaintained versions of `image` and
//! `protobuf`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::files::with_path;

/// File version in the first record. From version 2 on, readers drop superseded steps after a session start.
const FILE_VERSION: &str = "brain.Event:2";
/// Added to a rotated checksum, because the CRC of data that contains CRCs is a weak checksum
/// (`tensorflow/core/lib/hash/crc32c.h`).
const CRC_MASK_DELTA: u32 = 0xa282_ead8;
/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;
/// `Summary.Image.colorspace` of RGB.
const COLORSPACE_RGB: u64 = 3;

/// An open event file.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TensorBoard {
    /// Creates a new event file in `folder`, which is created too if it does not exist. A resumed run adds a file to
    /// the earlier ones.
    ///
    /// # Errors
    /// If the file cannot be created or written; the message names it.
    pub fn create(folder: &Path) -> io::Result<TensorBoard> {
        fs::create_dir_all(folder).map_err(|error| with_path(error, folder))?;
        let (path, file) = create_file(folder, wall_time().as_secs())?;
        let mut tensorboard = TensorBoard { path, file: BufWriter::new(file) };
        tensorboard.append(0, |event| event.bytes(3, FILE_VERSION.as_bytes()))?;
        tensorboard.flush()?;
        Ok(tensorboard)
    }

    /// Records that a process begins, whose first events may be of `step`: readers drop those of `step` and later ones in
    /// earlier files (tensorflow/tensorboard, `backend/event_processing/event_accumulator.py`, `_Purge`).
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn begin_at(&mut self, step: u64) -> io::Result<()> {
        let mut session_log = Message::default();
        session_log.integer(1, SESSION_START);
        self.append(step, |event| event.bytes(7, &session_log.0))
    }

    /// Records one scalar.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> io::Result<()> {
        self.summary(tag, step, |summary| summary.float(2, value))
    }

    /// Records one picture, given as the bytes of a PNG file and its size in pixels.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn image(&mut self, tag: &str, step: u64, png: &[u8], height: usize, width: usize) -> io::Result<()> {
        let mut image = Message::default();
        image.integer(1, height as u64);
        image.integer(2, width as u64);
        image.integer(3, COLORSPACE_RGB);
        image.bytes(4, png);
        self.summary(tag, step, |summary| summary.bytes(4, &image.0))
    }

    /// Writes all buffered records to the file, so that a running TensorBoard sees them.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| with_path(error, &self.path))
    }

    fn summary(&mut self, tag: &str, step: u64, write_value: impl FnOnce(&mut Message)) -> io::Result<()> {
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes());
        write_value(&mut value);
        let mut summary = Message::default();
        summary.bytes(1, &value.0);
        self.append(step, |event| event.bytes(5, &summary.0))
    }

    fn append(&mut self, step: u64, write_content: impl FnOnce(&mut Message)) -> io::Result<()> {
        let mut event = Message::default();
        event.double(1, wall_time().as_secs_f64());
        event.integer(2, step);
        write_content(&mut event);
        self.file.write_all(&record(&event.0)).map_err(|error| with_path(error, &self.path))
    }
}

/// Creates `events.out.tfevents.<seconds>.simmim`, with a number appended if that file exists. The last part is
/// conventionally the host name; readers only require that it is there.
fn create_file(folder: &Path, seconds: u64) -> io::Result<(PathBuf, File)> {
    let mut path = folder.join(format!("events.out.tfevents.{seconds}.simmim"));
    for number in 1.. {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = folder.join(format!("events.out.tfevents.{seconds}.simmim.{number}"));
            }
            Err(error) => return Err(with_path(error, &path)),
        }
    }
    unreachable!("there are more numbers than files")
}

/// Time since the Unix epoch; zero if the clock is set before it.
fn wall_time() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The TFRecord frame: length, checksum of the length, payload, checksum of the payload.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(payload.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(payload);
    record.extend(masked_crc(payload).to_le_bytes());
    record
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(CRC_MASK_DELTA)
}

/// A protobuf message under construction; fields are given by number.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payloads of an event file, every length and checksum verified.
    fn payloads(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let payload = &rest[12..12 + length];
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            assert_eq!(rest[12 + length..16 + length], masked_crc(payload).to_le_bytes());
            payloads.push(payload.to_vec());
            rest = &rest[16 + length..];
        }
        payloads
    }

    #[test]
    fn checksums_are_the_published_ones() {
        // RFC 3720, B.4, then the mask of `tensorflow/core/lib/hash/crc32c.h` computed separately
        let check = |bytes: &[u8], crc: u32, masked: u32| {
            assert_eq!(crc32c::crc32c(bytes), crc);
            assert_eq!(masked_crc(bytes), masked);
        };
        check(&[0; 32], 0x8a91_36aa, 0x0fd7_fffa);
        check(&[0xff; 32], 0x62a8_ab43, 0xf909_b029);
        check(b"123456789", 0xe306_9283, 0xc78a_b0e5);
        // the start of a file that TensorFlow wrote, whose first record is 24 bytes long
        assert_eq!(masked_crc(&24_u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn a_record_is_length_payload_and_their_checksums() {
        let check = |payload: &[u8]| {
            let record = record(payload);
            assert_eq!(record.len(), payload.len() + 16);
            assert_eq!(record[..8], (payload.len() as u64).to_le_bytes());
            assert_eq!(record[8..12], masked_crc(&record[..8]).to_le_bytes());
            assert_eq!(record[12..12 + payload.len()], *payload);
            assert_eq!(record[12 + payload.len()..], masked_crc(payload).to_le_bytes());
        };
        check(b"");
        check(b"payload");
        check(&[7; 300]);
    }

    #[test]
    fn numbers_take_as_many_bytes_as_protobuf_gives_them() {
        let check = |value: u64, expected: &[u8]| {
            let mut message = Message::default();
            message.integer(2, value);
            assert_eq!(message.0[0], 0x10);
            assert_eq!(message.0[1..], *expected, "{value}");
        };
        check(0, &[0x00]);
        check(127, &[0x7f]);
        check(128, &[0x80, 0x01]);
        check(300, &[0xac, 0x02]);
        check(1 << 21, &[0x80, 0x80, 0x80, 0x01]);
    }

    #[test]
    fn each_kind_of_event_is_the_message_written_out_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let mut tensorboard = TensorBoard::create(folder.path()).unwrap();
        tensorboard.scalar("loss", 300, 0.5).unwrap();
        tensorboard.image("val", 1, b"PNG", 2, 3).unwrap();
        tensorboard.begin_at(7).unwrap();
        tensorboard.flush().unwrap();
        let payloads = payloads(&tensorboard.path);
        assert_eq!(payloads.len(), 4);

        // after field 1, the wall time: nine bytes that differ in every run
        let check = |index: usize, expected: &[u8]| {
            assert_eq!(payloads[index][0], 0x09);
            let seconds = f64::from_le_bytes(payloads[index][1..9].try_into().unwrap());
            assert!(seconds > 1.7e9, "{seconds} is no time of today");
            assert_eq!(payloads[index][9..], *expected, "event {index}");
        };
        check(0, b"\x10\x00\x1a\x0dbrain.Event:2");
        check(1, b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f");
        check(2, b"\x10\x01\x2a\x14\x0a\x12\x0a\x03val\x22\x0b\x08\x02\x10\x03\x18\x03\x22\x03PNG");
        check(3, b"\x10\x07\x3a\x02\x08\x01");
    }

    #[test]
    fn files_of_one_second_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let (path, _) = create_file(folder.path(), 1_700_000_000).unwrap();
            assert_eq!(path.file_name().unwrap(), expected);
        };
        check("events.out.tfevents.1700000000.simmim");
        check("events.out.tfevents.1700000000.simmim.1");
        check("events.out.tfevents.1700000000.simmim.2");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let message = TensorBoard::create(&file.join("run")).unwrap_err().to_string();
        assert!(message.contains(&file.join("run").display().to_string()), "{message}");
    }
}
