//! Layers on a device.
//!
//! They need an adapter, of software too; without one they say so and pass, unless
//! SEQRS_REQUIRE_GPU is 1.

mod case;
mod choices;
mod devices;
mod failures;
mod functions;
mod hard;
mod masks;
mod pieces;
mod values;
