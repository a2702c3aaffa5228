//! A checksum of a few images, by which a run knows whether the images that it goes on with are those that it began with,
//! wherever they are now.

use simmim_data::{Image, Pixels, Source};

/// Number of images that are read, evenly spaced: so few that it takes no time beside a run.
const IMAGES: usize = 16;

/// A checksum of the size and the pixels of an image.
pub(crate) fn of_image(image: &Image) -> u32 {
    let sizes = [image.channels, image.height, image.width];
    let sum = sizes.iter().fold(0, |sum, size| crc32c::crc32c_append(sum, &(*size as u64).to_le_bytes()));
    match &image.pixels {
        Pixels::U8(pixels) => crc32c::crc32c_append(sum, pixels),
        Pixels::F32(pixels) => pixels.iter().fold(sum, |sum, v| crc32c::crc32c_append(sum, &v.to_le_bytes())),
    }
}

/// A checksum of some images of a source. One that cannot be read counts as such.
pub(crate) fn of_source(source: &dyn Source) -> String {
    let count = source.len().min(IMAGES);
    let sum = (0..count).fold(0, |sum, i| {
        let image = source.get(i * source.len() / count).map_or(0, |sample| of_image(&sample.image));
        crc32c::crc32c_append(sum, &image.to_le_bytes())
    });
    format!("{count} images, crc32c {sum:08x}")
}

/// A checksum of the classes of a source, and of the names and all labels of its images in their order. Of a path only the
/// last part counts, because ranks may have the same images in different places.
pub(crate) fn of_listing(source: &dyn Source) -> u32 {
    let add = |sum: u32, text: &str| crc32c::crc32c_append(crc32c::crc32c_append(sum, text.as_bytes()), &[0]);
    let classes = source.classes().iter().fold(0, |sum, class| add(sum, class));
    (0..source.len()).fold(classes, |sum, index| {
        let name = source.name(index);
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let labels = source.labels(index);
        let sum = crc32c::crc32c_append(add(sum, last), &(labels.len() as u64).to_le_bytes());
        labels.iter().fold(sum, |sum, label| crc32c::crc32c_append(sum, &(*label as u64).to_le_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::{Encoded, idx_from_bytes};

    fn sum(pixels: &[u8]) -> String {
        let header = [0, 0, 8, 3, 0, 0, 0, pixels.len() as u8, 0, 0, 0, 1, 0, 0, 0, 1];
        of_source(idx_from_bytes(&[&header, pixels].concat(), None, 1).unwrap().as_ref())
    }

    #[test]
    fn other_images_and_another_order_have_another_sum() {
        let pixels: Vec<u8> = (0..40).collect();
        assert_eq!(sum(&pixels), sum(&pixels));
        let reversed: Vec<u8> = pixels.iter().rev().copied().collect();
        assert_ne!(sum(&pixels), sum(&reversed));
        assert_ne!(sum(&[1, 2, 3]), sum(&[1, 2, 4]));
        assert!(sum(&pixels).starts_with("16 images") && sum(&[7]).starts_with("1 images"));
    }

    /// Images of several classes each, without pixels.
    struct Listed {
        classes: Vec<String>,
        labels: Vec<Vec<usize>>,
    }

    impl Source for Listed {
        fn len(&self) -> usize {
            self.labels.len()
        }

        fn classes(&self) -> &[String] {
            &self.classes
        }

        fn name(&self, index: usize) -> String {
            format!("a/{index}.png")
        }

        fn encoded(&self, _: usize) -> simmim_data::Result<Encoded> {
            unreachable!("a listing reads no image")
        }

        fn label(&self, index: usize) -> Option<usize> {
            self.labels[index].first().copied()
        }

        fn labels(&self, index: usize) -> Vec<usize> {
            self.labels[index].clone()
        }
    }

    #[test]
    fn a_listing_has_all_labels_and_the_names_of_classes() {
        let sum = |classes: [&str; 2], labels: [&[usize]; 2]| {
            let classes = classes.map(str::to_owned).to_vec();
            of_listing(&Listed { classes, labels: labels.map(<[usize]>::to_vec).to_vec() })
        };
        let one = sum(["ant", "bee"], [&[0, 1], &[1]]);
        assert_eq!(sum(["ant", "bee"], [&[0, 1], &[1]]), one);
        assert_ne!(sum(["bee", "ant"], [&[0, 1], &[1]]), one);
        assert_ne!(sum(["ant", "bee"], [&[0], &[1]]), one);
        assert_ne!(sum(["ant", "bee"], [&[0], &[1, 1]]), one);
    }
}
