//! Patch embeddings for images of another number of channels.

use serde::Serialize;

/// How a patch embedding is adapted to another number of channels. Each rule keeps the response to an image whose
/// channels are all alike, so that the layers behind it meet what they were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelRule {
    /// The channels again and again; copies of one share its weight. Of fewer channels, each gets the sum of those that it stands
    /// for: gray images get the sum over red, green and blue.
    Repeat,
    /// Every channel gets the mean over the channels of the file: for channels that are not colors.
    Mean,
    /// The channels of the file as they are, and zeros for all others. Of fewer channels, sums as for [`Repeat`](Self::Repeat).
    Zero,
}

/// Adapts the weight of a patch embedding from `shape[1]` to `channels` channels.
///
/// # Shapes
/// `[D, C, p, p]` → `[D, C', p, p]`.
///
/// # Panics
/// If `shape` is not that of `weight`.
pub(super) fn with_channels(weight: &[f32], shape: &[usize], channels: usize, rule: ChannelRule) -> Vec<f32> {
    let [width, from, height, side] = *shape else { panic!("a patch embedding is [D, C, p, p], not {shape:?}") };
    let plane = height * side;
    assert_eq!(weight.len(), width * from * plane, "{} values are not {shape:?}", weight.len());
    let copies = |channel: usize| (0..channels).filter(|other| other % from == channel).count() as f32;
    let mut out = Vec::with_capacity(width * channels * plane);
    for of_output in weight.chunks_exact(from * plane) {
        for channel in 0..channels {
            let old = |channel: usize| &of_output[channel * plane..][..plane];
            match rule {
                ChannelRule::Repeat | ChannelRule::Zero if channels < from => {
                    out.extend((0..plane).map(|i| (channel..from).step_by(channels).map(|c| old(c)[i]).sum::<f32>()));
                }
                ChannelRule::Repeat => {
                    let share = 1.0 / copies(channel % from);
                    out.extend(old(channel % from).iter().map(|v| v * share));
                }
                ChannelRule::Mean => {
                    out.extend((0..plane).map(|i| (0..from).map(|c| old(c)[i]).sum::<f32>() / channels as f32));
                }
                ChannelRule::Zero if channel < from => out.extend(old(channel)),
                ChannelRule::Zero => out.resize(out.len() + plane, 0.0),
            }
        }
    }
    out
}

/// Values per channel, such as means, for another number of channels.
pub(crate) fn per_channel(values: &[f32], channels: usize, rule: ChannelRule, empty: f32) -> Vec<f32> {
    let mean = values.iter().sum::<f32>() / values.len().max(1) as f32;
    let of = |channel: usize| match rule {
        ChannelRule::Repeat => values[channel % values.len()],
        ChannelRule::Mean => mean,
        ChannelRule::Zero => values.get(channel).copied().unwrap_or(empty),
    };
    (0..channels).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [ChannelRule; 3] = [ChannelRule::Repeat, ChannelRule::Mean, ChannelRule::Zero];

    #[test]
    fn the_response_to_gray_images_stays() {
        // two outputs, three channels, patches of 1 × 2, all channels of an output alike or not
        let weight: Vec<f32> = (0..12).map(|v| v as f32 * 0.5 - 1.0).collect();
        let gray = |weight: &[f32], channels: usize| -> Vec<f32> {
            let of_output = |w: &[f32]| (0..2).map(|i| w.iter().skip(i).step_by(2).sum::<f32>()).collect::<Vec<_>>();
            weight.chunks_exact(2 * channels).flat_map(of_output).collect()
        };
        for (rule, channels) in RULES.into_iter().flat_map(|rule| [1, 2, 3, 4, 5, 6, 9].map(|n| (rule, n))) {
            let adapted = with_channels(&weight, &[2, 3, 1, 2], channels, rule);
            assert_eq!(adapted.len(), 4 * channels);
            let (found, expected) = (gray(&adapted, channels), gray(&weight, 3));
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{rule:?} {channels}: {found:?}");
        }
        let gray_weight = with_channels(&weight, &[2, 3, 1, 2], 1, ChannelRule::Mean);
        assert_eq!(gray_weight, gray(&weight, 3));
    }

    #[test]
    fn channels_are_repeated_averaged_or_left_empty() {
        let weight = [3.0, 6.0, 9.0];
        let to = |channels, rule| with_channels(&weight, &[1, 3, 1, 1], channels, rule);
        assert_eq!(to(4, ChannelRule::Repeat), [1.5, 6.0, 9.0, 1.5]);
        assert_eq!(to(4, ChannelRule::Mean), [4.5; 4]);
        assert_eq!(to(4, ChannelRule::Zero), [3.0, 6.0, 9.0, 0.0]);
        assert_eq!(to(2, ChannelRule::Repeat), [12.0, 6.0]);
        assert_eq!(to(1, ChannelRule::Zero), [18.0]);
        assert_eq!(per_channel(&[1.0, 2.0, 6.0], 4, ChannelRule::Zero, 0.5), [1.0, 2.0, 6.0, 0.5]);
        assert_eq!(per_channel(&[1.0, 2.0, 6.0], 2, ChannelRule::Mean, 0.5), [3.0, 3.0]);
    }
}
