//! Bridges with real servers beside them: several on one stream of JetStream, and one that asks sensors by gRPC.

#[path = "bridges/pulled.rs"]
mod pulled;
#[path = "bridges/several.rs"]
mod several;
#[path = "bridges/world.rs"]
mod world;
