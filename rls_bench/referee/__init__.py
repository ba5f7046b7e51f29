"""The judge that no kernel can reach: it draws inputs, knows what is right, and looks at what was returned."""
