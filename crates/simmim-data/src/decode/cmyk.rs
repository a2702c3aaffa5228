//! Converts four printing inks to red, green and blue, as Pillow does.

/// Converts interleaved cyan, magenta, yellow and black, 0 to 255 of ink, as in `cmyk2rgb` of Pillow
/// (`libImaging/Convert.c`). Color profiles are not applied.
pub(super) fn to_rgb(inks: &[u8]) -> Vec<u8> {
    let (pixels, _) = inks.as_chunks::<4>();
    let color = |[cyan, magenta, yellow, black]: &[u8; 4]| {
        let paper = 255 - black;
        [cyan, magenta, yellow].map(|ink| paper - product(*ink, paper))
    };
    pixels.iter().flat_map(color).collect()
}

/// a·b / 255, rounded.
fn product(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_rounded() {
        for a in 0..=255 {
            for b in 0..=255 {
                let exact = f64::from(a) * f64::from(b) / 255.0;
                assert!((f64::from(product(a, b)) - exact).abs() <= 0.5, "{a} · {b}");
            }
        }
    }

    #[test]
    fn inks_take_away_light() {
        let inks = [[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255], [255; 4], [0, 0, 0, 100]];
        let colors = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0], [0, 0, 0], [155, 155, 155]];
        assert_eq!(to_rgb(inks.as_flattened()), colors.as_flattened());
    }
}
