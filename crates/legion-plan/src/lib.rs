//! World to plan: every decision of the operator and every child object's builder, pure.
