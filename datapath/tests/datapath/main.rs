//! Tests of the junction of the two cores, as the driver and the simulator run it.

mod addresses;
mod control;
mod narrow;
mod net;
mod rules;
mod together;
mod waiting;
