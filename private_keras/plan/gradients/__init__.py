"""Reverse mode over plans: gradients are further steps of the same plan. One rule for each primitive."""
from private_keras.plan.gradients.joints import difference
from private_keras.plan.gradients.records import Gradient, Joint
from private_keras.plan.gradients.reverse import gradients
from private_keras.plan.gradients.rules import RULES, Rule
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.gradients.unfold import UNFOLDED, unfold

__all__ = ["RULES", "UNFOLDED", "Gradient", "Joint", "Rule", "Tape", "difference", "gradients", "unfold"]
