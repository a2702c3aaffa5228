//! Which parameters decay, and how fast each layer learns: every parameter in exactly one group.

use crate::encoder::Encode;
use crate::recipe::DecayGroups;
use simmim_engine::{Parameter, ParameterTable};

/// For each parameter of the table, whether weight decay applies.
///
/// One-dimensional parameters and biases never decay; for names see [`DecayGroups`].
pub fn decays(table: &ParameterTable, encoder: &impl Encode, groups: DecayGroups) -> Vec<bool> {
    let exempt_by_name = |p: &Parameter| match groups {
        DecayGroups::Official => encoder.is_exempt_from_decay(&p.name),
        DecayGroups::Corrected => encoder.is_exempt_from_decay(&p.name) || encoder.is_position_or_mask(&p.name),
    };
    table.iter().map(|p| p.shape.len() > 1 && !p.name.ends_with(".bias") && !exempt_by_name(p)).collect()
}

/// For each parameter of the table, the factor on its learning rate: `layer_decay` once for every layer above it.
pub fn lr_scales(table: &ParameterTable, encoder: &impl Encode, layer_decay: f64) -> Vec<f64> {
    let last = encoder.spec().depth + 1;
    table.iter().map(|p| layer_decay.powi((last - encoder.layer_of(&p.name)) as i32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::model::SimMim;
    use crate::recipe::resolve;
    use crate::target::Colours;

    #[test]
    fn the_mask_token_and_bias_table_decay_officially_and_not_when_corrected() {
        let recipe = resolve("pretrain-vit-cifar", &[]).unwrap();
        let mut builder = Builder::default();
        let model = SimMim::new(&recipe, &Colours::unknown(3), &mut builder).unwrap();
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
