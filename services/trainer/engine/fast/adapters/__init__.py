"""Linear layers with adapters, alone, beside each other and as whole MLPs, each as one operation."""
