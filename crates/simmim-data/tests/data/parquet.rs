//! Parquet files: the layout of Hugging Face's image data sets, written here and by its own library.

use std::sync::Arc;

use ::parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::FileReader as _;
use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use bytes::Bytes;
use simmim_data::{Error, open, scan};
use tempfile::tempdir;

use crate::files::{colorful, gray, write};
use crate::sources::value;

/// A row of a table of images.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) path: Option<&'a str>,
    pub(crate) bytes: Option<&'a [u8]>,
    pub(crate) label: Option<i64>,
}

/// A file of these rows, with row groups of `group` rows and small pages.
pub(crate) fn written(rows: &[Row<'_>], classes: &[&str], group: usize) -> Vec<u8> {
    packed(rows, classes, group, Compression::SNAPPY)
}

fn packed(rows: &[Row<'_>], classes: &[&str], group: usize, compression: Compression) -> Vec<u8> {
    let schema = "message schema {
        OPTIONAL GROUP image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
        OPTIONAL INT64 label;
    }";
    let features = serde_json::json!({ "info": { "features": {
        "image": { "_type": "Image" }, "label": { "_type": "ClassLabel", "names": classes },
    } } });
    let features = (!classes.is_empty()).then(|| vec![KeyValue::new("huggingface".to_owned(), features.to_string())]);
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(compression == Compression::SNAPPY)
        .set_data_page_size_limit(600)
        .set_write_batch_size(1)
        .set_key_value_metadata(features)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut out = writer.next_row_group().unwrap();
        let texts = |of: &dyn Fn(&Row<'_>) -> Option<Vec<u8>>| -> (Vec<ByteArray>, Vec<i16>) {
            let found: Vec<_> = rows.iter().map(of).collect();
            let levels = found.iter().map(|text| if text.is_some() { 2 } else { 1 }).collect();
            (found.into_iter().flatten().map(ByteArray::from).collect(), levels)
        };
        for (values, levels) in
            [texts(&|row| row.bytes.map(<[u8]>::to_vec)), texts(&|row| row.path.map(|path| path.as_bytes().to_vec()))]
        {
            let mut column = out.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        let labels: Vec<i64> = rows.iter().filter_map(|row| row.label).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.label.is_some())).collect();
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        out.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn rows_without_path_label_or_image_are_what_they_are() {
    let images: Vec<Vec<u8>> = (0..5).map(gray).collect();
    let row = |number: usize, label| Row { path: None, bytes: Some(&images[number]), label };
    let rows = [
        row(3, Some(1)),
        row(1, None),
        Row { path: None, bytes: None, label: Some(0) },
        row(0, Some(-1)),
        row(4, Some(2)),
    ];
    let root = tempdir().unwrap();
    let path = root.path().join("x.parquet");
    write(&path, &written(&rows, &[], 2));
    let source = open(&path.display().to_string(), 3).unwrap();
    assert_eq!(source.classes(), ["0", "1", "2"]);
    let labels: Vec<_> = (0..5).map(|index| source.label(index)).collect();
    assert_eq!(labels, [Some(1), None, Some(0), None, Some(2)]);
    assert_eq!([0, 1, 3, 4].map(|index| value(&*source, index)), [3, 1, 0, 4], "the order of the rows");
    assert_eq!(source.name(1), format!("{}#1", path.display()));
    let unreadable = scan(&source, 0, &mut |_| {}).unwrap().unreadable;
    assert!(unreadable.len() == 1 && unreadable[0].reason.contains("the row has no image"), "{unreadable:?}");
}

#[test]
fn files_with_other_columns_say_what_they_have() {
    let schema = Arc::new(parse_message_type("message schema { REQUIRED INT64 id; REQUIRED DOUBLE price; }").unwrap());
    let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let root = tempdir().unwrap();
    let path = root.path().join("x.parquet");
    write(&path, &writer.into_inner().unwrap());
    let error = open(&path.display().to_string(), 3).err().unwrap();
    assert!(error.to_string().contains("no column of images; it has `id` (INT64), `price` (DOUBLE)"), "{error}");
    assert!(error.is_users_fault() && error.hint().is_some());
}

#[test]
fn files_with_other_classes_are_not_joined() {
    let image = colorful(1);
    let row = [Row { path: Some("a.png"), bytes: Some(&image), label: Some(0) }];
    let root = tempdir().unwrap();
    write(&root.path().join("x.parquet"), &written(&row, &["cat", "dog"], 1));
    write(&root.path().join("y.parquet"), &written(&row, &["cat", "emu"], 1));
    let error = open(&root.path().display().to_string(), 3).err().unwrap();
    assert!(matches!(error, Error::ClassesDisagree { position: 1, .. }), "{error}");
    write(&root.path().join("y.parquet"), &written(&row, &["cat", "dog"], 1));
    assert_eq!(open(&root.path().display().to_string(), 3).unwrap().len(), 2);
}

/// A file that the library `datasets` wrote; `testdata/README.md` says how.
#[test]
fn a_file_of_the_original_library_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/parquet/huggingface.parquet");
    let source = open(path, 3).unwrap();
    assert_eq!(source.classes(), ["cat", "dog", "emu"]);
    assert_eq!(source.len(), 12);
    for index in 0..12 {
        assert_eq!((value(&*source, index), source.label(index)), (20 * index as u8, Some(index % 3)));
        assert!(source.name(index).ends_with(&format!(":{index:02}.png")), "{}", source.name(index));
    }
}

#[test]
fn pages_of_every_compression_that_pyarrow_has_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/parquet/compressions");
    for compression in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"] {
        for version in [1, 2] {
            let source = open(&format!("{folder}/{compression}-{version}.parquet"), 1).unwrap();
            let samples: Vec<_> =
                (0..source.len()).map(|index| (value(&*source, index), source.label(index))).collect();
            let expected: Vec<_> = (0..6).map(|index| (20 * index as u8, Some(index % 3))).collect();
            assert_eq!(samples, expected, "{compression}, {version}");
        }
    }
}

/// Replaces a number in Thrift's compact protocol by another one of as many bytes, wherever it is; returns whether it is anywhere.
fn claim(file: &mut [u8], number: u64, claimed: u64) -> bool {
    let zigzag = |number: u64| {
        let (mut left, mut bytes) = (2 * number, Vec::new());
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    };
    let (found, replaced) = (zigzag(number), zigzag(claimed));
    assert_eq!(found.len(), replaced.len());
    let places: Vec<usize> = (0..file.len() - 3).filter(|at| file[*at..].starts_with(&found)).collect();
    places.iter().for_each(|at| file[*at..*at + found.len()].copy_from_slice(&replaced));
    !places.is_empty()
}

#[test]
fn a_page_that_holds_more_than_it_claims_is_refused_before_it_is_unpacked() {
    const BYTES: usize = 1_000_000;
    let image = vec![0; BYTES];
    let row = [Row { path: Some("a.png"), bytes: Some(&image), label: Some(0) }];
    let root = tempdir().unwrap();
    let compressions = [
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
    ];
    for (number, compression) in compressions.into_iter().enumerate() {
        let mut file = packed(&row, &[], 1, compression);
        let reader = SerializedFileReader::new(Bytes::from(file.clone())).unwrap();
        let column = reader.metadata().row_group(0).column(0);
        let (page, of_column) = (column.data_page_offset() as usize, column.uncompressed_size() as u64);
        let footer = file.len() - 8 - u32::from_le_bytes(*file[..file.len() - 4].last_chunk().unwrap()) as usize;
        // the page claims a little less than its column, whose size also has that of the header of the page
        let claims_less = (BYTES as u64..of_column).any(|size| claim(&mut file[page..page + 12], size, 300_000));
        assert!(claims_less, "{compression:?} {page} {of_column} {:?}", &file[page..page + 16]);
        assert!(claim(&mut file[footer..], of_column, 300_000), "{compression:?} {of_column}");
        let path = root.path().join("x.parquet");
        write(&path, &file);
        let source = open(&path.display().to_string(), 3).unwrap();
        let error = source.get(0).unwrap_err().to_string();
        assert!(number > 1 || error.contains("a page holds more than the 300000 bytes of its column"), "{error}");
    }
}

/// Columns of images and of labels, which of them have a type, and the gray level and the label that are read.
type Columns = (&'static [&'static str], &'static [&'static str], &'static [&'static str], (u8, usize));

#[test]
fn of_several_columns_of_images_and_labels_those_with_usual_names_are_taken() {
    let image =
        |name: &str| format!("OPTIONAL GROUP {name} {{ OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }}");
    let label = |name: &str| format!("OPTIONAL INT64 {name};");
    // gray levels are the numbers of the columns of images, and labels those of the columns of labels
    let cases: [Columns; 5] = [
        (
            &["annotation", "image"],
            &["coarse_label", "fine_label"],
            &["annotation", "image", "coarse_label", "fine_label"],
            (1, 1),
        ),
        (&["scan", "annotation"], &["gender", "label"], &["annotation", "scan", "gender"], (0, 1)),
        (&["conditioning_image", "image"], &["age", "gender"], &["image", "conditioning_image", "gender"], (1, 1)),
        (&["scan", "image"], &["target"], &["scan"], (0, 0)),
        (&["other", "image"], &["class", "label"], &[], (1, 1)),
    ];
    for (number, (images, labels, typed, expected)) in cases.into_iter().enumerate() {
        let columns: String =
            images.iter().map(|name| image(name)).chain(labels.iter().map(|name| label(name))).collect();
        let schema = Arc::new(parse_message_type(&format!("message schema {{ {columns} }}")).unwrap());
        let kind = |name: &str| if images.contains(&name) { "Image" } else { "ClassLabel" };
        let features: serde_json::Map<_, _> =
            typed.iter().map(|name| ((*name).to_owned(), serde_json::json!({ "_type": kind(name) }))).collect();
        let text = serde_json::json!({ "info": { "features": features } }).to_string();
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), text)]))
            .build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut out = writer.next_row_group().unwrap();
        for gray_level in 0..images.len() {
            for text in [gray(gray_level as u8), b"a.png".to_vec()] {
                let mut column = out.next_column().unwrap().unwrap();
                column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(text)], Some(&[2]), None).unwrap();
                column.close().unwrap();
            }
        }
        for label in 0..labels.len() {
            let mut column = out.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[label as i64], Some(&[1]), None).unwrap();
            column.close().unwrap();
        }
        out.close().unwrap();
        let root = tempdir().unwrap();
        let path = root.path().join("x.parquet");
        write(&path, &writer.into_inner().unwrap());
        let source = open(&path.display().to_string(), 3).unwrap();
        assert_eq!((value(&*source, 0), source.label(0).unwrap()), expected, "case {number}");
    }
}

#[test]
fn metadata_that_claims_two_billion_booleans_is_refused_at_once() {
    let image = gray(1);
    let mut file = written(&[Row { path: Some("a.png"), bytes: Some(&image), label: Some(0) }], &[], 1);
    let end = file.len() - 8;
    let length = u32::from_le_bytes(*file[end..].first_chunk().unwrap()) as usize;
    // one more field before the end of the structure: a list of 2³¹ − 1 elements that take no bytes
    let field = [0xb9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
    file.splice(end - 1..end - 1, field);
    let at = file.len() - 8;
    file[at..at + 4].copy_from_slice(&((length + field.len()) as u32).to_le_bytes());
    let root = tempdir().unwrap();
    let path = root.path().join("x.parquet");
    write(&path, &file);
    let started = std::time::Instant::now();
    let error = open(&path.display().to_string(), 3).err().unwrap().to_string();
    assert!(error.contains("claims more elements than there are bytes"), "{error}");
    assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
}
