"""Who may: the built-in identity service, HTTP basic and none; policy by oslo.policy with Cinder's rule names."""
