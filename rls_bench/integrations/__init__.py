"""Steering inside other people's models, and saliency from vision models (extra ``models``)."""
