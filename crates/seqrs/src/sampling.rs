//! Text, or any other sequence of ids, from a model that predicts the next one.

use std::cmp::Ordering;

use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps, interrupt};
use seqrs_cpu::Cpu;

use crate::layer::{Layer, LayerSpec};
use crate::number::Number;
use crate::random::Stream;
use crate::room::{copied, room};
use crate::sequential::{Input, Sequential};

/// How the next id is chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// The logits are divided by it: below 1 likely ids become likelier, above 1 they
    /// come closer together. At 0 the likeliest id is taken and nothing is drawn.
    pub temperature: f64,
    /// Draws among this many likeliest ids only, at least 1.
    pub top_k: Option<usize>,
    /// Draws among the fewest likeliest ids whose probabilities (after `top_k`) sum to at
    /// least this, in (0, 1] (Holtzman et al. 2020).
    pub top_p: Option<f64>,
    /// The n-th id is a function of the logits, this seed and n.
    pub seed: u64,
}

impl Default for Sampling {
    /// Temperature 1, all ids, seed 0.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl Sampling {
    fn check(&self) -> Result<(), Error> {
        if !(0.0..=f64::MAX).contains(&self.temperature) {
            let expected = "a number that is at least 0 and finite";
            return Err(Error::option("temperature", expected, self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(Error::option("top_k", "an integer of at least 1, or none", 0));
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(Error::option("top_p", "a number in (0, 1], or none", p))
            }
            _ => Ok(()),
        }
    }

    /// The id that these logits give with a number drawn from [0, 1). Ties go to the lower
    /// id. None if the logits make no distribution.
    fn choose<T: Number>(&self, logits: &[T], uniform: f64) -> Result<Option<usize>, Error> {
        let logit = |id: usize| Number::to_f64(logits[id]);
        if (0..logits.len()).any(|id| logit(id).is_nan() || logit(id) == f64::INFINITY) {
            return Ok(None);
        }
        let likelier =
            |&a: &usize, &b: &usize| -> Ordering { logit(b).total_cmp(&logit(a)).then(a.cmp(&b)) };
        let best = (0..logits.len()).min_by(likelier).filter(|&id| logit(id).is_finite());
        let Some(best) = best else { return Ok(None) };
        if self.temperature == 0.0 {
            return Ok(Some(best));
        }
        let weight = |id: usize| ((logit(id) - logit(best)) / self.temperature).exp();
        let sum = |ids: &[usize]| ids.iter().map(|&id| weight(id)).sum::<f64>();

        let mut ids = room("ids to choose from", logits.len())?;
        ids.extend(0..logits.len());
        if let Some(k) = self.top_k.filter(|&k| k < ids.len()) {
            ids.select_nth_unstable_by(k, likelier);
            ids.truncate(k);
        }
        if let Some(p) = self.top_p.filter(|&p| p < 1.0) {
            ids.sort_unstable_by(likelier);
            let enough = p * sum(&ids);
            let mut covered = 0.0;
            let kept = ids.iter().take_while(|&&id| {
                let more = covered < enough;
                covered += weight(id);
                more
            });
            let kept = kept.count();
            ids.truncate(kept);
        }
        // In the order of the ids, so that a filter that lets all through changes nothing.
        ids.sort_unstable();
        let drawn = uniform * sum(&ids);
        let mut covered = 0.0;
        let chosen = ids.iter().find(|&&id| {
            covered += weight(id);
            covered > drawn
        });
        // Rounding may leave the sum at the number drawn.
        Ok(Some(*chosen.unwrap_or(&best)))
    }
}

/// `steps` ids that go on from `prompt`, one step of the model at a time.
///
/// The model's input are ids, its output are logits, one for each id. The prompt is read
/// from the model's initial state. The result does not repeat the prompt.
///
/// # Errors
/// - [`Error::Option`] names the option that is out of its range.
/// - [`Error::Shape`] if the prompt is empty, or has an id that the model does not know, or
///   the model has more logits than ids.
/// - [`Error::State`] if the model cannot go step by step (it is bidirectional, or takes the
///   mean or maximum over steps).
/// - [`Error::DType`] if the model's input are numbers.
/// - [`Error::Numerical`] if a logit is NaN or plus infinity, or none is finite.
/// - [`Error::OutOfMemory`], [`Error::Interrupted`].
pub fn generate<T: Number>(
    model: &Sequential<T>,
    prompt: &[i64],
    steps: usize,
    sampling: &Sampling,
) -> Result<Vec<i64>, Error> {
    sampling.check()?;
    if prompt.is_empty() {
        return Err(Error::shape("prompt", "at least one id", "none"));
    }
    model.check_stepwise()?;
    if let Some(LayerSpec::Embedding(table)) = model.layers().first().map(Layer::spec) {
        let known = |id: i64| usize::try_from(id).is_ok_and(|id| id < table.num_embeddings);
        if let Some(k) = prompt.iter().position(|&id| !known(id)) {
            let expected = format!("an id in 0..{}", table.num_embeddings);
            return Err(Error::shape(format!("prompt[{k}]"), expected, prompt[k]));
        }
        if let Some(width) = model.output_width().filter(|&width| width > table.num_embeddings) {
            let expected = format!("at most {} (one for each id)", table.num_embeddings);
            return Err(Error::shape("logits of the model", expected, width));
        }
    }
    let mut state = model.zero_state(1)?;
    let cpu = Cpu::new()?;
    let mut stream = Stream::new(sampling.seed, 0);
    let mut ids = Vec::new();
    let mut input = copied("prompt", prompt)?;
    for step in 0..steps {
        interrupt::check()?;
        let rows = Rows { data: &input[..], place: Place::packed(1) };
        let time = Steps::dense(input.len(), 1)?;
        let output = model.infer_on(&cpu, Input::Ids(rows), &time, &mut state)?;
        let logits = &output.numbers[output.numbers.len() - output.width..];
        stream.seek(2 * step as u64);
        let id = sampling.choose(logits, stream.uniform())?.ok_or_else(|| {
            let expected = "numbers below infinity, one of them finite";
            Error::numerical(format!("logits of step {step}"), expected, "others")
        })?;
        ids.try_reserve(1).map_err(|_| Error::OutOfMemory {
            what: "generated ids".to_owned(),
            bytes: (ids.len() as u128 + 1) * size_of::<i64>() as u128,
        })?;
        ids.push(id as i64);
        input = vec![id as i64];
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(seed: u64) -> Sequential<f32> {
        let specs = serde_json::json!([
            {"kind": "embedding", "num_embeddings": 7, "embedding_dim": 5, "seed": 0},
            {"kind": "linear", "in_features": 5, "out_features": 7, "bias": true, "seed": 0},
        ]);
        let specs: Vec<LayerSpec> = serde_json::from_value(specs).unwrap();
        let layers = specs.into_iter().map(|spec| Layer::new(spec).unwrap()).collect();
        Sequential::new(layers).unwrap().reseeded(seed).unwrap()
    }

    fn sample(model: &Sequential<f32>, sampling: &Sampling) -> Result<Vec<i64>, Error> {
        generate(model, &[1, 2], 30, sampling)
    }

    #[test]
    fn one_seed_gives_the_same_ids_and_another_gives_others() {
        let model = model(3);
        let seeded = |seed| sample(&model, &Sampling { seed, ..Sampling::default() }).unwrap();
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert!(seeded(1).iter().all(|id| (0..7).contains(id)));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let model = model(3);
        let of = |steps| generate(&model, &[1], steps, &Sampling::default()).unwrap();
        assert_eq!(of(30)[..11], of(11));
        assert!(of(0).is_empty());
    }

    #[test]
    fn temperature_0_and_top_k_1_take_the_likeliest() {
        let model = model(3);
        let greedy = sample(&model, &Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
        let best = Sampling { top_k: Some(1), seed: 9, ..Sampling::default() };
        assert_eq!(sample(&model, &best).unwrap(), greedy);
        let least = Sampling { top_p: Some(1e-9), seed: 8, ..Sampling::default() };
        assert_eq!(sample(&model, &least).unwrap(), greedy);
        let cpu = Cpu::new().unwrap();
        let mut id = 2;
        for &next in &greedy {
            let rows = Rows { data: &[id][..], place: Place::packed(1) };
            let time = Steps::dense(1, 1).unwrap();
            let mut state = model.zero_state(1).unwrap();
            let logits = model.infer_on(&cpu, Input::Ids(rows), &time, &mut state).unwrap().numbers;
            assert!(logits.iter().all(|&logit| logit <= logits[next as usize]));
            id = next;
        }
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let model = model(3);
        let default = Sampling::default;
        for (sampling, name) in [
            (Sampling { temperature: -1.0, ..default() }, "temperature"),
            (Sampling { temperature: f64::NAN, ..default() }, "temperature"),
            (Sampling { temperature: f64::INFINITY, ..default() }, "temperature"),
            (Sampling { top_k: Some(0), ..default() }, "top_k"),
            (Sampling { top_p: Some(0.0), ..default() }, "top_p"),
            (Sampling { top_p: Some(1.1), ..default() }, "top_p"),
            (Sampling { top_p: Some(f64::NAN), ..default() }, "top_p"),
        ] {
            let error = sample(&model, &sampling).unwrap_err();
            assert!(matches!(&error, Error::Option { what, .. } if what == name), "{error}");
        }
        let with = |prompt: &[i64]| generate(&model, prompt, 1, &default()).unwrap_err();
        assert!(with(&[]).to_string().contains("prompt"));
        assert!(matches!(with(&[7]), Error::Shape { .. }));
        assert!(matches!(with(&[-1]), Error::Shape { .. }));
    }

    #[test]
    fn frequencies_are_those_of_the_softmax() {
        let logits = [0.0, 1.0, f64::NEG_INFINITY, 2.0];
        let sampling = Sampling { temperature: 2.0, ..Sampling::default() };
        let weights = logits.map(|logit: f64| (logit / 2.0).exp());
        let total: f64 = weights.iter().sum();
        let draws = 10_000;
        let mut count = [0; 4];
        for k in 0..draws {
            let uniform = (f64::from(k) + 0.5) / f64::from(draws);
            count[sampling.choose(&logits, uniform).unwrap().unwrap()] += 1;
        }
        for (count, weight) in count.iter().zip(weights) {
            let expected = weight / total * f64::from(draws);
            assert!((f64::from(*count) - expected).abs() <= 1.0, "{count} {expected}");
        }
    }

    #[test]
    fn what_is_no_distribution_chooses_nothing() {
        let sampling = Sampling::default();
        for logits in [[f64::NAN, 0.0], [f64::INFINITY, 0.0], [f64::NEG_INFINITY; 2]] {
            assert_eq!(sampling.choose(&logits, 0.5), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn filters_keep_the_likeliest(
            logits in prop::collection::vec(-5.0_f64..5.0, 1..20),
            k in 1_usize..25,
            p in 0.01_f64..1.0,
            uniform in 0.0_f64..1.0,
        ) {
            let plain = Sampling::default();
            let all = Sampling { top_k: Some(logits.len()), top_p: Some(1.0), ..plain.clone() };
            prop_assert_eq!(all.choose(&logits, uniform), plain.choose(&logits, uniform));

            let filtered = Sampling { top_k: Some(k), top_p: Some(p), ..plain };
            let id = filtered.choose(&logits, uniform).unwrap().unwrap();
            let above = logits.iter().filter(|&&logit| logit > logits[id]);
            prop_assert!(above.clone().count() < k);
            // The ids above the chosen one did not reach p by themselves.
            let mut sorted = logits.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let total: f64 = sorted.iter().take(k).map(|logit| logit.exp()).sum();
            prop_assert!(above.map(|logit| logit.exp()).sum::<f64>() < p * total * (1.0 + 1e-12));
        }
    }
}
