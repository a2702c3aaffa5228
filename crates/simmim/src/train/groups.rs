//! Parameter groups: weight decay and layer-wise learning-rate scale of each parameter, and which are frozen.

use crate::encoders::Encode;
use crate::recipe::{DecayGroups, TrainRecipe};
use simmim_engine::{Parameter, ParameterTable};

/// How the learning-rate schedule and weight decay apply to a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Factor on the peak learning rate.
    pub lr_scale: f64,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Whether the parameter does not train at all.
    pub is_frozen: bool,
}

/// The group of each parameter of `table`, a model that contains `encoder`.
pub fn groups(table: &ParameterTable, encoder: &impl Encode, train: &TrainRecipe) -> Vec<Group> {
    let scales = lr_scales(table, encoder, train.layer_decay);
    let decays = decays(table, encoder, train.decay_groups);
    let frozen = table.iter().map(|p| encoder.is_frozen_with(train.frozen_blocks, &p.name));
    let each = scales.into_iter().zip(decays).zip(frozen);
    each.map(|((lr_scale, decays), is_frozen)| Group { lr_scale, decays, is_frozen }).collect()
}

/// Whether weight decay applies, for each parameter of the table.
///
/// One-dimensional parameters and biases never decay; [`DecayGroups`] says which others are exempt by name.
pub fn decays(table: &ParameterTable, encoder: &impl Encode, groups: DecayGroups) -> Vec<bool> {
    let exempt_by_name = |p: &Parameter| match groups {
        DecayGroups::Official => encoder.is_exempt_from_decay(&p.name),
        DecayGroups::Corrected => encoder.is_exempt_from_decay(&p.name) || encoder.is_position_or_mask(&p.name),
    };
    table.iter().map(|p| p.shape.len() > 1 && !p.name.ends_with(".bias") && !exempt_by_name(p)).collect()
}

/// The factor on the learning rate of each parameter of the table: `layer_decay` to the power of the number of layers
/// above it (BEiT, arXiv:2106.08254).
pub fn lr_scales(table: &ParameterTable, encoder: &impl Encode, layer_decay: f64) -> Vec<f64> {
    let last = encoder.spec().depth + 1;
    table.iter().map(|p| layer_decay.powi((last - encoder.layer_of(&p.name)) as i32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SimMim;
    use crate::recipe::resolve;
    use crate::targets::Colors;
    use crate::testing::DEVICE;
    use crate::weights::Builder;

    #[test]
    fn the_mask_token_and_bias_table_decay_officially_and_not_when_corrected() {
        let recipe = resolve("pretrain-vit-cifar", &[]).unwrap();
        let mut builder = Builder::default();
        let model = SimMim::new(&recipe, &Colors::unknown(3), &DEVICE, &mut builder).unwrap();
        let (table, _) = builder.finish();
        let of = |groups, name: &str| {
            let index = table.iter().position(|p| p.name == name).unwrap();
            decays(&table, model.encoder(), groups)[index]
        };
        let rows = [
            ("encoder.mask_token", true, false),
            ("encoder.rel_pos_bias.relative_position_bias_table", true, false),
            ("encoder.cls_token", false, false),
            ("encoder.blocks.0.gamma_1", false, false),
            ("encoder.blocks.0.attn.qkv.weight", true, true),
            ("decoder.0.weight", true, true),
            ("decoder.0.bias", false, false),
        ];
        for (name, official, corrected) in rows {
            assert_eq!(of(DecayGroups::Official, name), official, "{name}");
            assert_eq!(of(DecayGroups::Corrected, name), corrected, "{name}");
        }
    }
}
