"""The one training loop, distillation losses, and the teacher."""
